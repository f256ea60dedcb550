package gateway

// Memo holds what Build worked out about single objects from nothing but the
// objects themselves, by UID and resourceVersion. A Memo is never changed once
// a Result carries it, so several Builds may read one.
type Memo struct{}
