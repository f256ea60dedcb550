// Package replica has what the replicas of a hub exchange, as plain values.
//
// Each replica owns maps (key -> bytes), one for each topic, and sees those of every
// other replica. A reader takes values whole and the latest wins, so a lost message
// harms nothing, and a slow reader costs one entry for each key and no queue.
//
//   - Own has the maps of this replica, and what each Follower was not sent yet.
//   - Mirror has the maps of one other replica.
//   - Presence says whether another replica is heard. It counts ticks of the reader, not
//     time: a reader that was stopped for a minute counts one tick, and takes nobody for
//     silent because it slept itself.
//
// The package below it, link, carries Frames between replicas. internal/linktest does so
// within one test.
package replica
