// Command crossway is the fleet admin's command line; as kubectl-crossway on PATH it
// is also `kubectl crossway`.
//
// It does what a person decides and no controller can: it makes a cluster the hub,
// lets clusters and edges join and leave, and says what is wrong. It keeps no state
// and calls only the API servers of the clusters that its flags name. The rules are in
// pure packages (pkg/registration); this one has the flags, the requests and the words.
//
// Each command is a file: a function that makes its cobra.Command, a struct with its
// flags, and a struct with its result, which -o prints. What they share is app: the
// cluster of --context, clients and printers. Results go to standard output, progress to
// standard error.
//
//	crossway hub init --context hub --set 'hubCIDRs={10.10.0.0/16,10.110.0.0/16}'
package main
