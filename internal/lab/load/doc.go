// Package load sends requests as strangers would: open loop, at a fixed rate
// whatever the answers do, and never a second try. It judges nothing; it
// records one Sample per request, and pure functions over samples count.
//
// Example: 300 GETs a second for ten seconds from region us.
//
//	recorder := load.Start(ctx, load.Config{Rate: 300, URL: "http://198.18.1.1/", Host: "store.example.com", Client: load.Client(dial, nil)})
//	time.Sleep(10 * time.Second)
//	samples := recorder.Stop()
package load
