// Package renewal keeps the certificate of the edges of one pool and zone current, in one
// Secret of their cluster, which Envoy reads as files.
//
// It owns that Secret's tls.crt, tls.key and ca.crt. It asks the hub, with the present
// certificate, for the next one and for the CAs to trust, over the port that edges connect
// to. It never makes a credential: who has no certificate, or one that has ended, joins
// again with a token.
//
//	r := renewal.Renewer{Client: c, Secret: key, Hub: "hub.example.com:18000", ServerName: name, Log: log}
//	err := r.Start(ctx) // until ctx ends
package renewal
