// Package e2e runs every claim of the demo as a test, in the lab, with
// binaries built with the race detector: counts and splits as in the demo,
// times with a limit ten times wider (the demo alone judges the tight ones).
//
// Example: go test ./test/e2e -run TestStory/cut -v
package e2e
