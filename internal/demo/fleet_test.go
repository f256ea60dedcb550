package demo

import (
	"slices"
	"testing"
)

func TestChangedResources(t *testing.T) {
	before := map[string]string{"a.version": "1", "b.version": "2", "c.update_success": "7"}
	after := map[string]string{"a.version": "1", "b.version": "3", "d.version": "9"}
	want := []string{"b.version: 2 -> 3", "c.update_success: 7 -> ", "d.version: new, 9"}
	if got := ChangedResources(before, after); !slices.Equal(got, want) {
		t.Errorf("changed %q, want %q", got, want)
	}
	if got := ChangedResources(before, before); len(got) != 0 {
		t.Errorf("nothing changed, and %q is reported", got)
	}
}
