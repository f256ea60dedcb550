// Package process runs the lab's long-lived programs: in a chosen network
// namespace, with a log file each, and never outliving their owner: the kernel
// kills them when the process that started them dies, however it dies
// (PR_SET_PDEATHSIG, prctl(2)).
//
// It never decides what to run, and never restarts anything.
//
//	group := process.NewGroup(nil)
//	defer group.Close()
//	p, err := group.Start(process.Spec{Args: []string{"etcd", "--data-dir", dir}, Log: dir + "/etcd.log"})
package process
