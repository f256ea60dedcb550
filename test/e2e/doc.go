// Package e2e runs every claim of the demo as a test, in the lab, with
// binaries built with the race detector: counts and splits as in the demo,
// times with a limit ten times wider (the demo alone judges the tight ones).
// Beside TestStory it tests, on the same fleet, what a demo does not show: bad
// input, refusals, false certificates, and figures that go bad when a mechanism
// is switched off. Nothing here asks Crossway how it is doing, but for the
// conditions and metrics that are themselves the claim; and every test puts back
// what it changed for all.
//
// Example: go test ./test/e2e -run TestStory/cut -v
package e2e
