// Package snapshot keeps what informers have in files, and starts informers from
// them while the API server does not answer: a program that is restarted during an
// outage of its API server then works with what it last knew.
//
// The snapshot is a cache. As soon as the API server answers, its list replaces what
// came from the snapshot, and the snapshot is not read again. Whoever writes to the
// API server waits for Live: a snapshot is never a reason to change or delete
// anything.
//
// There is one file per kind, so that a change costs the kind that changed. It has
// mode 0600 and is replaced as a whole. The files hold Secrets: keep them in memory
// (an emptyDir of medium Memory), where they live as long as the pod.
//
// Example:
//
//	store := snapshot.New(snapshot.Options{Dir: "/run/crossway/snapshot", Kinds: kinds, Scheme: scheme})
//	mgr, err := ctrl.NewManager(config, ctrl.Options{Cache: cache.Options{NewInformer: store.NewInformer}})
//	store.Watch(mgr.GetCache())
//	err = mgr.Add(store)
//	<-store.Live() // the caches have what the API server has
package snapshot
