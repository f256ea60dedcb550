package gateway

import "crossway.dev/crossway/api/v1alpha1"

// Build says what a snapshot means: what all edges are to serve, and a verdict
// for every object that has a status of ours.
func Build(in Input) Result {
	return Result{}
}

// Allocate gives each Gateway of ours one address in every EdgePool that it
// lives in, and returns copies of the pools whose status.allocations changed,
// by name. What is allocated stays while its Gateway exists, wherever that
// moves; a Gateway that is gone gives its addresses back.
func Allocate(in Input) []v1alpha1.EdgePool {
	return nil
}
