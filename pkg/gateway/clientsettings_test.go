package gateway

import (
	"testing"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/gateway/model"
)

// What the API server would refuse counts as the default, so that no edge gets a value that Envoy refuses.
func TestClientSettings(t *testing.T) {
	all := &v1alpha1.ClientSettings{TrustedHops: 2,
		HTTP10:  v1alpha1.HTTP10Settings{Action: "Refuse", DefaultHost: "a.example"},
		Headers: v1alpha1.HeaderSettings{Underscores: "Drop", MaxKiB: 96, MaxCount: 1000, RequestID: "Replace", ForwardedHost: "Never"},
		Paths:   v1alpha1.PathSettings{EscapedSlashes: "Unescape", DoubleSlashes: "Merge"}}
	want := model.ClientSettings{TrustedHops: 2, RefuseHTTP10: true, HTTP10Host: "a.example", Underscores: model.DropUnderscores, MaxHeaderKiB: 96, MaxHeaders: 1000,
		OwnRequestIDs: true, HideHost: true, EscapedSlashes: model.UnescapeSlashes, MergeSlashes: true}
	if got := clientSettings(all); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	hostile := &v1alpha1.ClientSettings{TrustedHops: -1, HTTP10: v1alpha1.HTTP10Settings{Action: "x", DefaultHost: "a\r\nb"},
		Headers: v1alpha1.HeaderSettings{Underscores: "x", MaxKiB: -5, MaxCount: -1, RequestID: "x", ForwardedHost: "x"},
		Paths:   v1alpha1.PathSettings{EscapedSlashes: "x", DoubleSlashes: "x"}}
	if got := clientSettings(hostile); got != (model.ClientSettings{}) {
		t.Errorf("%+v", got)
	}
	large := &v1alpha1.ClientSettings{Headers: v1alpha1.HeaderSettings{MaxKiB: 1 << 30, MaxCount: 1 << 30}}
	if got := clientSettings(large); got.MaxHeaderKiB != 96 || got.MaxHeaders != 1000 {
		t.Errorf("%+v", got)
	}
}
