package replica

import "slices"

// TooMany says whether a replica has at least two clients more than another one. So one
// that is moved there is not moved back.
func TooMany(own int, others []int) bool {
	return len(others) > 0 && own >= slices.Min(others)+2
}
