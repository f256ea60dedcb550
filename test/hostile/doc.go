// Package hostile has tests of what a stolen credential of a member's agent can do
// at a real API server of the hub: with the Role, the quota and the admission
// policy that the hub and its chart make, and with nothing else in the way. What
// the hub makes of objects that are let through is tested where it is decided.
package hostile
