// Package writer writes Reports into the status of objects. It decides when and
// how status is written: only on the leader, by read-modify-write, and never twice
// with the same content. It never decides the content of a status.
//
// The writer keeps the latest Report of each source for each object. So with a slow
// API server no queue grows and no source is blocked. A replica that does not lead
// keeps Reports, too, and writes them once it leads.
//
// The writer changes only its own part of a status: conditions of the types of the
// Source that reports. In lists that several controllers share (RouteStatus.parents,
// PolicyStatus.ancestors: both listType=atomic, hence read-modify-write) it changes
// only the entries with Crossway's controllerName.
//
// Example:
//
//	w := writer.New(writer.Options{Client: manager.GetClient(), Live: manager.GetAPIReader()})
//	_ = manager.Add(leadership.EachTerm(w))
//	gateway := w.Source("gateway", "Accepted", "Programmed", "ResolvedRefs")
//	gateway.Report(result.Reports) // from the loop; returns at once
package writer
