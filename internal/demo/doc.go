// Package demo shows Crossway on a running fleet and measures it: one
// step after another on the lab, each with what was expected and what was
// seen, everything counted outside of Crossway. Figures and their bounds are
// one table (Bounds); the demo has passed when every bound holds.
//
// It never asks Crossway how it is doing: clients count answers, and pods say
// who they are.
//
// Example: Judge(Figures{"cut_failed": {0}, ...}) is nil when all bounds hold.
package demo
