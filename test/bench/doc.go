// Package bench measures what a change costs on its way through a whole fleet:
// from a written object to the ACK of the last Envoy, at several sizes. It runs
// on the lab, with the programs and charts that are shipped.
//
// Times come from three clocks of one machine: the bench's own just before it
// writes; the hub's debug log, which says when a response left and when an ACK
// came; the kernel's for when a process began. It owns the objects that it
// makes and the arithmetic of its figures; it never judges them (docs/performance.md has
// the goals beside the figures).
//
//	b, err := bench.New(ctx, fleet, os.Stdout)   // a lab with Crossway at log level debug
//	figures, err := b.Measure(ctx, 1000, bench.Parts) // 1000 routes, each its own import of 150 endpoints
//	fmt.Println(figures["slice_to_ack_ms"].P50)
//
// Scale is another fleet: many members without clusters, behind two hub replicas.
package bench
