// Package election names who leads: the pod, not the process. A process that
// is restarted in its pod is the leader again at once, instead of waiting 15 s
// until the Lease of its dead predecessor runs out. Two processes of one pod
// are never alive together, so one name is still one leader.
//
// Example: options.LeaderElectionResourceLockInterface, err = election.Lock(config, election.Lease{Namespace: "crossway-system", Name: "crossway-hub", Pod: os.Getenv("POD_NAME")})
package election
