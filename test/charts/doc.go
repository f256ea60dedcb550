// Package charts tests what an administrator installs: the three charts, the
// roles in them, the CRDs' validation, the edges' bootstrap and shell script,
// and the project's other scripts and examples.
//
// It has no code of the product. It never reads a template: it renders charts
// with helm, applies the result to a real API server, and runs Envoy and bash on
// the files in it.
//
//	manifests := render(t, "edge", "pool=us,region=us,zone=us-a,hub.address=10.0.0.1")
package charts
