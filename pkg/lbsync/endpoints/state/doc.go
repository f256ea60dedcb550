// Package state is the state of the endpoints loop: a compact copy of all EndpointSlices, the members and pools, the
// assignments with their backends, and for each backend the estimated demand, the members held out and the shares in
// force. It says which assignments a change touches and what each load assignment is made from.
//
// It is pure: it has no lock, clock, log or goroutine. Time is an argument, and methods return what should be published,
// logged and reported. One caller at a time may change a State; AssignInput may run concurrently with itself.
//
// Example, one pass of the loop:
//
//	events := s.Apply(changes)     // slices, members, pools and load reports
//	keys := s.Update(now)          // divides demand again where it is due
//	for _, key := range keys {
//		load := lbsync.Assign(s.AssignInput(key, region)) // publish it
//	}
package state
