package endpoints

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/gateway/model"
)

// Whether an import has ready endpoints is said at all times, also while nobody sends it
// a request: an alert needs a series without holes. One that no cluster has is 0.
func TestIdleImportsHaveMetrics(t *testing.T) {
	f := newFixture(t)
	f.import2("web", 1)
	f.SetAssignments([]model.Assignment{assignmentOf("a", "web"), assignmentOf("b", "nowhere")}, nil)
	f.run()
	testkit.Must(t, testutil.CollectAndCompare(f.Loop, strings.NewReader(`
# HELP crossway_import_ready_endpoints Ready endpoints of a cluster's part of an import that routes use, admitted ones only. 0 without a cluster: no cluster has a part.
# TYPE crossway_import_ready_endpoints gauge
crossway_import_ready_endpoints{cluster="",import="shop/nowhere"} 0
crossway_import_ready_endpoints{cluster="eu-west",import="shop/web"} 2
crossway_import_ready_endpoints{cluster="us-west",import="shop/web"} 2
`), "crossway_import_ready_endpoints"))
}
