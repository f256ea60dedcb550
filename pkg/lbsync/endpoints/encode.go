package endpoints

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/types/known/anypb"

	"crossway.dev/crossway/pkg/lbsync"
)

type Resource struct {
	TypeURL, Name, Version string
	Body                   *anypb.Any
}

func encode(a lbsync.LoadAssignment) (Resource, error) {
	h := sha256.New()
	for _, l := range a.Localities {
		h.Write([]byte(l.SubZone() + l.Place.Region + l.Place.Zone))
		for _, e := range l.Endpoints {
			b, _ := e.MarshalBinary()
			h.Write(b)
		}
	}
	sum := h.Sum(nil)
	return Resource{Name: a.Key, Version: lbsync.Version(hex.EncodeToString(sum[:8]), a.Shares)}, nil
}
