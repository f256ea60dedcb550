// Package state is the state of the endpoints loop: a compact copy of all EndpointSlices, the members and pools, the
// assignments and their backends. For each backend and region it has the estimated demand, the members that are held
// out, and the shares in force. It says which assignments a change affects, and has the input of lbsync.Assign for each.
//
// It is pure: it has no lock, clock, log or goroutine. Time is an argument, and methods return what should be published,
// logged and reported. One caller at a time may change a State; AssignInput may run concurrently with itself.
//
// Example, one pass of the loop:
//
//	events := s.Apply(changes)     // slices, members, pools and load reports
//	keys := s.Update(now)          // divides the demand of changed backends again; the assignments that may have changed
//	for _, key := range keys {
//		load := lbsync.Assign(s.AssignInput(key, region)) // publish it
//	}
package state
