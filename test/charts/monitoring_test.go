package charts

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/internal/testkit"
)

// The PrometheusRule has the rules of the plain file, as they are, and the ConfigMap the
// board. Neither is there unless it is asked for. What the rules do, TestAlerts of
// cmd/hub tries.
func TestMonitoring(t *testing.T) {
	for _, o := range objects(t, render(t, "hub", "")) {
		if o.GetKind() == "PrometheusRule" || o.GetKind() == "ConfigMap" {
			t.Errorf("%s %s is there by default", o.GetKind(), o.GetName())
		}
	}
	manifest := render(t, "hub", "monitoring.alerts.enabled=true,monitoring.alerts.labels.release=prometheus,monitoring.board.enabled=true")
	rule := find(t, manifest, "PrometheusRule", "crossway-hub")
	text, err := os.ReadFile(filepath.Join(root, "charts/hub/files/alerts.yaml"))
	testkit.Must(t, err)
	var plain map[string]any
	testkit.Must(t, yaml.Unmarshal(text, &plain))
	if len(plain) != 1 || !reflect.DeepEqual(rule.Object["spec"], any(plain)) {
		t.Errorf("the PrometheusRule has %v", rule.Object["spec"])
	}
	if rule.GetLabels()["release"] != "prometheus" {
		t.Errorf("labels %v", rule.GetLabels())
	}
	board := find(t, manifest, "ConfigMap", "crossway-hub-board")
	if board.GetLabels()["grafana_dashboard"] != "1" {
		t.Errorf("labels %v", board.GetLabels())
	}
	data, _, err := unstructured.NestedString(board.Object, "data", "crossway-fleet.json")
	testkit.Must(t, err)
	var panels struct{ Panels []any }
	testkit.Must(t, json.Unmarshal([]byte(data), &panels))
	if len(panels.Panels) < 10 {
		t.Errorf("the board has %d panels", len(panels.Panels))
	}
}
