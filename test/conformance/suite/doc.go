// Package suite pins the official conformance suite of the Gateway API and the
// program of its test pods, echo-basic, which is part of the suite's own module.
// Its Corefile is served by the lab's own CoreDNS.
//
// It is a module of its own, as internal/lab/binaries is: the suite brings its
// own versions of client-go and controller-runtime, and the product's go.mod
// lists none of this. internal/lab/install builds it into the cache.
package suite
