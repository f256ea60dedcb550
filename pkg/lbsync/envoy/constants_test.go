package envoy

import (
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// Constants are not validated each time, so they are here, once.
func TestConstantsAreValid(t *testing.T) {
	for body := range constants {
		if body == enabledFilter { // Envoy wants an Any without a type in it
			continue
		}
		message, err := body.UnmarshalNew()
		if err == nil {
			err = validate(message)
		}
		if err != nil {
			t.Errorf("%s: %v", body.GetTypeUrl(), err)
		}
	}
	for _, filter := range append(slices.Clip(slashFilters), retryIdempotentFilter) {
		if err := validate(filter); err != nil {
			t.Error(err)
		}
	}
	host := &routev3.VirtualHost{}
	if err := proto.Unmarshal(virtualHostDefaults, host); err != nil {
		t.Fatal(err)
	}
	host.Name, host.Domains = "a.example", []string{"a.example"}
	if err := validate(host); err != nil {
		t.Error(err)
	}
}
