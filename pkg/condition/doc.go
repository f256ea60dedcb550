// Package condition has a constructor for every condition that Crossway sets on an
// object, named after what the condition means. It also has Report: the conditions
// of one object, which pure packages compute and condition/writer writes.
//
// A message says which object, what is wrong, and what to do. A condition has
// no time and no generation: the writer adds both.
//
// Example:
//
//	condition.BackendNotFound(fleet.Backend{Kind: fleet.Import, Name: web})
//	// ResolvedRefs=False BackendNotFound
//	// ServiceImport "shop/web" does not exist; export Service "web" from at least one cluster
package condition
