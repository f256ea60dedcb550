package reconciler

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/rollout"
	"crossway.dev/crossway/pkg/replica"
)

// Keys of what a replica tells: a poolAnswers of each pool, and a record of each route
// that edges of the pool refuse, since that has an object and may be large.
const (
	answersPrefix = "answers/"
	refusedPrefix = "refused/"
)

// answersVersion is that of poolAnswers. What another version says is not read: replicas of
// two versions live together while the hub is upgraded, and count their own edges alone.
const answersVersion = 1

// poolAnswers is rollout.PoolAnswers without earlier versions of routes.
type poolAnswers struct {
	Version  int                    `json:"version"`
	Gateways []gatewayVersion       `json:"gateways,omitempty"`
	Edges    []edgeAnswers          `json:"edges,omitempty"`
	Refused  []refusal              `json:"refused,omitempty"`
	Taken    []rollout.RouteVersion `json:"taken,omitempty"`
}

type gatewayVersion struct {
	Namespace  string    `json:"ns"`
	Name       string    `json:"name"`
	UID        types.UID `json:"uid"`
	Generation int64     `json:"gen"`
	Complete   bool      `json:"complete,omitempty"`
}

type edgeAnswers struct {
	rollout.Edge
	Left      time.Time                `json:"left,omitzero"`
	New       bool                     `json:"new,omitempty"`
	Lacks     []fleet.ObjectName       `json:"lacks,omitempty"`
	Refuses   []rollout.RefusedGateway `json:"refuses,omitempty"`
	Routes    []rollout.RouteVersion   `json:"routes,omitempty"`
	Resources []rollout.ResourceID     `json:"resources,omitempty"`
}

// refusal is a refused route, whose earlier version is in the record under the key.
type refusal struct {
	rollout.RouteVersion
	Instead int64 `json:"instead,omitempty"` // generation; 0: none
}

// encodeAnswers is the value of one pool, and the records of what its edges refuse.
func encodeAnswers(pool string, a rollout.PoolAnswers) (value []byte, records map[string][]byte, err error) {
	out := poolAnswers{Version: answersVersion, Taken: a.Taken}
	for name, g := range a.Gateways {
		out.Gateways = append(out.Gateways, gatewayVersion{name.Namespace, name.Name, g.Version.UID, g.Version.Generation, g.Complete})
	}
	slices.SortFunc(out.Gateways, func(a, b gatewayVersion) int { return strings.Compare(a.Namespace+"/"+a.Name, b.Namespace+"/"+b.Name) })
	for _, e := range a.Edges {
		out.Edges = append(out.Edges, edgeAnswers(e))
	}
	records = map[string][]byte{}
	for _, f := range a.Refused[:min(len(a.Refused), maxRecords)] {
		entry := refusal{RouteVersion: rollout.RouteVersion{Ref: f.Ref, Version: f.Version}}
		if f.Instead != nil {
			entry.Instead = f.Instead.Generation
		}
		out.Refused = append(out.Refused, entry)
		if records[refusedKey(pool, f.Ref)], _, err = contentOfRefusal(f); err != nil {
			return nil, nil, err
		}
	}
	value, err = json.Marshal(out)
	return replica.Pack(value), records, err
}

func refusedKey(pool string, ref fleet.RouteRef) string {
	return fmt.Sprintf("%s%s/%s/%s", refusedPrefix, pool, ref.Kind, ref.Name)
}

// decodeAnswers reads the value of one pool. record returns what is known under a key. A
// route whose record is not there yet, or is about another version, counts as not refused
// until it is: what its edges get instead is not known.
func decodeAnswers(pool string, value []byte, record func(key string) (rollout.Refusal, bool)) (rollout.PoolAnswers, error) {
	value, err := replica.Unpack(value)
	if err != nil {
		return rollout.PoolAnswers{}, err
	}
	var in poolAnswers
	if err := json.Unmarshal(value, &in); err != nil {
		return rollout.PoolAnswers{}, err
	}
	if in.Version != answersVersion {
		return rollout.PoolAnswers{}, fmt.Errorf("version %d of what edges answered is not known; this is version %d", in.Version, answersVersion)
	}
	out := rollout.PoolAnswers{Gateways: make(map[fleet.ObjectName]rollout.ServedGateway, len(in.Gateways)), Taken: in.Taken}
	for _, g := range in.Gateways {
		out.Gateways[fleet.ObjectName{Namespace: g.Namespace, Name: g.Name}] = rollout.ServedGateway{Version: rollout.ObjectVersion{UID: g.UID, Generation: g.Generation}, Complete: g.Complete}
	}
	known := map[rollout.RouteVersion]bool{}
	for _, entry := range in.Refused {
		f, found := record(refusedKey(pool, entry.Ref))
		instead := int64(0)
		if f.Instead != nil {
			instead = f.Instead.Generation
		}
		if found && f.Pool == pool && f.Ref == entry.Ref && f.Version == entry.Version && instead == entry.Instead {
			out.Refused, known[entry.RouteVersion] = append(out.Refused, f), true
		}
	}
	for _, e := range in.Edges {
		e.Routes = slices.DeleteFunc(e.Routes, func(v rollout.RouteVersion) bool { return !known[v] })
		out.Edges = append(out.Edges, rollout.EdgeAnswers(e))
	}
	return out, nil
}
