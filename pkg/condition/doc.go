// Package condition has every condition that Crossway puts on an object, each
// as a constructor that is named for what it says, and Report, the value in
// which pure code hands its verdicts to condition/writer.
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
