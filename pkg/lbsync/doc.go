// Package lbsync decides what the edges of a pool serve. Assign turns one assignment, the endpoints of its backends and
// a region's shares (package traffic) into one load assignment, and ProgramFor selects everything else that a pool
// serves from the model.
//
// It is pure, and protobuf appears only in its child lbsync/envoy. It never sees a Kubernetes object.
//
// ExampleAssign shows an import whose requests go to two clusters.
package lbsync
