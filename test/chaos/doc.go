// Package chaos says what may be seen of a fleet while its parts are killed, cut off and frozen at random. It is pure: a
// plan is a function of its seed, and a Model is told what was done and what was seen, and answers what is not allowed.
// test/e2e carries plans out in the lab (make chaos).
//
// What is allowed:
//
//   - A member never loses the part of a cluster that it has seen and that did not change: silence is not deletion.
//   - A member never shows an address that the cluster did not announce.
//   - A GET is answered 200 as long as one cluster is sure: it exports the service, clients of the region have been
//     served by it since, and nothing was between it and them.
//   - Nobody is served by a cluster that never exported the service, or that withdrew it and had a quiet time to say so.
package chaos
