package model

// SameSlice says whether two slices are one: of the same length and in the same
// memory, or both empty. Nobody changes a slice that is in a Model, or that a
// Model was made of, so that one slice is one content.
func SameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
