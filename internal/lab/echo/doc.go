// Package echo is the application of the lab's pods: an HTTP server that says
// in each answer which cluster, pod and version gave it, and counts what it
// received, so that the demo measures outside of Crossway. It never knows
// about gateways or imports.
//
// Example: GET /work?delay=200ms answers after 200 ms with
//
//	{"cluster":"us-west","namespace":"shop","pod":"store-7d9-x2","version":"v1","method":"GET","host":"store.example.com","path":"/work?delay=200ms"}
package echo
