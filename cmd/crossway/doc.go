// Command crossway is the fleet's command line; as kubectl-crossway on PATH it
// is also `kubectl crossway`.
//
// It owns what a person does at a terminal and no controller can: handing out
// certificates. It never keeps state, never talks to a member or an edge, and
// writes nothing that it was not asked for by name. What it decides is in
// pkg/registration; here are flags, the API server and words.
//
//	crossway edge certificate --pool us --region us --zone us-a
package main
