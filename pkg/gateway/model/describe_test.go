package model

import (
	"strings"
	"testing"
)

// A description names Secrets and never has their data.
func TestDescribeHidesSecrets(t *testing.T) {
	got := Describe(Model{
		Listeners: []Listener{{Port: 5432, Protocol: TCP, Chains: []Chain{{Name: "db", TCP: &L4Forward{Targets: []L4Target{{Assignment: "a", Weight: 9}, {Weight: 1}}}}}}},
		Secrets:   []Secret{{Name: "infra/cert", Certificate: []byte("CERTIFICATE"), PrivateKey: []byte("KEY")}},
	})
	if !strings.Contains(got, "secret infra/cert") || strings.Contains(got, "CERTIFICATE") || strings.Contains(got, "KEY") {
		t.Error(got)
	}
	if !strings.Contains(got, "-> a x9 -> closed x1") {
		t.Error(got)
	}
}
