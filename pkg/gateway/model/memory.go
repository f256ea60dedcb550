package model

// SameMemory says whether two lists are the same memory, or both empty. Nobody
// changes a list that is in a Model, or that a Model was made of, so the same
// memory is the same content.
func SameMemory[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
