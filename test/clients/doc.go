// Package clients lets real clients reach real servers through one edge: an
// Envoy with the chart's bootstrap and with the configuration that the product
// makes of a Gateway and its routes where nobody sets anything.
//
// Each client is a process that gets exchanges as lines of JSON and says what
// came back; each server is a process on loopback. What should come back is
// said here, in one table for all of them, so an exchange that one client or
// one server does not survive is seen as that, by its name: client, backend, case.
// It owns these programs (testdata) and the table. It never changes a setting
// to make a client pass: what needs one fails.
//
//	make clients
//	go test ./test/clients -run 'TestHTTP/curl-http1.0/node/upload'
package clients
