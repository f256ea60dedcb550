// Package writer puts Reports into the status of objects. It owns when and how
// status is written: on the leader only, by read-modify-write, and never twice
// with the same content. It never decides what a status says.
//
// What is wanted is kept per object, the latest wins, so a slow API server
// costs no queue and delays nobody. A replica that does not lead keeps what is
// wanted and writes it once it leads.
//
// Of a status it changes only its own part: the condition types of the Source
// that reports, and in lists that several controllers share (RouteStatus.parents,
// PolicyStatus.ancestors: both listType=atomic, hence read-modify-write) the
// entries with Crossway's controllerName.
//
// Example:
//
//	w := writer.New(writer.Options{Client: manager.GetClient(), Live: manager.GetAPIReader()})
//	_ = manager.Add(w)
//	gateway := w.Source("gateway", "Accepted", "Programmed", "ResolvedRefs")
//	gateway.Report(result.Reports) // from the loop; returns at once
package writer
