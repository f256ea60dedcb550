// Package batch lets one goroutine work off what many others report: an Inbox
// collects their changes, and a Pace says when the goroutine should take them.
// It never starts a goroutine and never waits; time is an argument.
//
// It is the same idea as a controller's work queue, for loops that must see
// all of a burst at once instead of one key after the other.
//
// Example:
//
//	inbox := batch.NewInbox(func() events { return events{} })
//	go watch(func(e event) { inbox.Add(func(p *events) { p.add(e) }) })
//	for range inbox.Wake() {
//		handle(inbox.Drain())
//	}
package batch
