package replica

// Spread says whether a replica has many more clients than its part of all.
//
// It begins at a quarter above that part, and at two more at least, and ends at one more.
// So of two replicas never both have too many, and a client that was moved is not moved
// back.
type Spread struct{ begun bool }

// TooMany says so, for its own clients and those of the other replicas that take some.
func (s *Spread) TooMany(own int, others []int) bool {
	all := own
	for _, n := range others {
		all += n
	}
	part := (all + len(others)) / (len(others) + 1) // rounded up
	limit := part + max(2, part/4)
	if s.begun {
		limit = part + 1
	}
	s.begun = len(others) > 0 && own > limit
	return s.begun
}
