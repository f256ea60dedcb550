// Package linktest joins links within one test, without sockets and clocks: what is set
// is seen everywhere when the call returns, and silence is when the test says so.
//
//	network := linktest.NewNetwork()
//	a, b := network.Link("hub-a"), network.Link("hub-b")
//	b.Topic("load").Subscribe(replica.Observer{Changed: ...})
//	a.Start(); b.Start()
//	a.Topic("load").Set("edge", value)
//	network.Cut("hub-a", "hub-b")  // both are told Silent
//	network.Heal("hub-a", "hub-b") // what changed meanwhile, then Heard
//	a.Stop()                       // as by SIGKILL
//	network.Gone("hub-a")          // as after ten minutes of silence
package linktest
