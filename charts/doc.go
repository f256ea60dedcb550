// Package charts holds Crossway's Helm charts and the CRDs of others that the hub
// and the members need, so that the command crossway installs them without a
// network and in its own version.
//
// It holds files only. The command crossway installs them; the CRDs of the
// Multi-Cluster Services API come with their own module (mcs-api/config/crd).
//
// Example:
//
//	fs.ReadFile(charts.FS, "hub/Chart.yaml")
package charts

import "embed"

// FS has a directory for each chart: hub, member-agent and edge.
//
//go:embed all:hub all:member-agent all:edge
var FS embed.FS

// GatewayAPI is the standard channel of the Gateway API: CRDs, and the admission
// policy that guards their upgrades. hack/generate.sh takes it from the module that
// go.mod pins.
//
//go:embed crds/gateway-api.yaml
var GatewayAPI []byte
