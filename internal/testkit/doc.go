// Package testkit has the few helpers that tests of all packages share: Must
// ends a test on an error, Eventually waits for a state of something else than
// the test's own process, Run runs something beside the test.
//
// It is our own instead of testify/require for two reasons. Eventually calls
// its condition in the test's goroutine, so a condition may end the test, and
// it reports what the condition saw last. Everything else in tests of this
// project is a plain comparison with a message.
//
// A fixture embeds T and has the helpers and the test's own methods:
//
//	type fixture struct {
//		testkit.T
//		client client.Client
//	}
//	f := &fixture{T: testkit.T{TB: t}}
//	f.Must(f.client.Create(f.Context(), object))
package testkit
