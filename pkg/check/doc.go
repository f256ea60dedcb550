// Package check says what is right and what is wrong with a fleet: Findings, one for
// each thing that was looked at, with what to do where it is wrong.
//
// It decides and never looks: the command crossway reads the hub into Facts. What
// the hub itself judges (conditions) it repeats, and what only a person can see from
// outside it adds: a hub that does not run, CRDs of another version, certificates
// near their end, programs of different versions.
//
// Example:
//
//	for _, f := range check.Findings(facts) {
//		fmt.Println(f.What, f.Level, f.Message, f.Do)
//	}
//	// MemberCluster us-west  wrong  Reachable is False: ...
package check
