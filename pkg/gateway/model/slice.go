package model

// SameSlice says whether two slices have the same length and the same memory, or
// are both empty. Slices in a Model, and slices that a Model was made of, are
// never changed, so the same slice has the same content.
func SameSlice[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
