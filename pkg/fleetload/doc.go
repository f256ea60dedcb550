// Package fleetload is the load of the fleet as its hub knows it: what clients of each region send for each import, which
// cluster answers how much of it, what each cluster takes, and what would be left without one of them. It is for people
// who look, and for the command line; nothing is decided from it.
//
// It is pure. The numbers are metrics of the hub's replicas, each of which knows the requests of all edges. The
// names of these metrics are here, so that who writes them and who reads them agree; package reader reads them.
//
// Example: may us-west leave?
//
//	load := fleetload.LoadOf(replicas)
//	for _, room := range load.RoomWithout("us-west") {
//		fmt.Println(room.Warning()) // empty where the others have room
//	}
package fleetload
