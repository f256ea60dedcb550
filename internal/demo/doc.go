// Package demo shows Crossway on a running fleet and measures it: one
// step after another on the lab, each with what was expected and what was
// seen, everything counted outside of Crossway. Figures and their bounds are
// one table (Bounds); the demo has passed when every bound holds.
//
// It never takes figures from Crossway itself: clients count answers, and each
// pod puts its name in its answers.
//
// Example: Judge(Figures{"cut_failed": {0}, ...}) is nil when all bounds hold.
package demo
