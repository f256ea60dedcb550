// Command crossway is the fleet's command line; as kubectl-crossway on PATH it
// is also `kubectl crossway`.
//
// It does what a person decides and no controller can: it signs certificates of
// edges. It keeps no state, calls only the hub's API server, and writes only the
// object that a flag names. The rules are in pkg/registration; this package has
// the flags, the requests and the messages.
//
//	crossway edge certificate --pool us --region us --zone us-a
package main
