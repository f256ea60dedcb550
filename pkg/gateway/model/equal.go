package model

import "reflect"

// Equal is reflect.DeepEqual, but fast where Build reused slices.
func (a Assignment) Equal(b Assignment) bool {
	return a.Key == b.Key && a.Route == b.Route && a.Protocol == b.Protocol && a.Timeout == b.Timeout &&
		equalBackends(a.Backends, b.Backends) && equalBackends(a.Fallback, b.Fallback) &&
		(a.Policy == b.Policy || reflect.DeepEqual(a.Policy, b.Policy))
}

func equalBackends(a, b []WeightedBackend) bool {
	return SameSlice(a, b) || len(a) == len(b) && reflect.DeepEqual(a, b)
}
