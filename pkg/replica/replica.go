package replica

import "time"

// Peer is where another replica may be found.
type Peer struct {
	// Name of its pod.
	Name string
	// Address is IP and port.
	Address string
}

// Replica is what is known of another replica.
type Replica struct {
	Name    string
	Address string
	// Version of its program; "": it was never heard.
	Version string
	// Heard is when something came from it last, by the clock of who asks. Zero: never.
	Heard time.Time
	// Connected: its maps are whole here, and it is not silent.
	Connected bool
	// Listed: it is among the pods of ServiceName. One that is not and is not Connected has ended.
	Listed bool
	// Leaving: it said that it stops. What it knows still counts, while it is Connected,
	// but nothing should begin to rely on it.
	Leaving bool
}

// Observer is told what other replicas' maps of one topic have. Fields may be nil. Calls
// of one Link never overlap, and those about one replica come in order. They return soon,
// since nothing is read from that replica meanwhile; they may call Set and Delete.
type Observer struct {
	// Changed has a value that belongs to the Link: it is not written to.
	Changed func(replica, key string, value []byte)
	Deleted func(replica, key string)
	// Unknown: the replica has a value of the key that is beyond a limit. It is not the one that it told
	// before, and whoever reads the topic decides for how long that one holds.
	Unknown func(replica, key string)
	// Heard: the replica's map is whole, and was not before. What it no longer has was Deleted.
	Heard func(replica string)
	// Silent: nothing comes from the replica. Its values are kept until it is heard again or Gone.
	Silent func(replica string)
	// Leaving: the replica stops soon. Silent follows when it is no longer there.
	Leaving func(replica string)
	// Gone: the replica was silent for long. Its values were Deleted.
	Gone func(replica string)
}

// Topic is one map of this replica, and the same map of the others.
type Topic interface {
	// Set makes value that of key. The value belongs to the Topic then. One beyond a limit is
	// Unknown to the others: they take neither an earlier one for it, nor the key for deleted.
	Set(key string, value []byte)
	Delete(key string)
	// Subscribe is called before the Link starts.
	Subscribe(Observer)
}

// Link joins the replicas of a hub.
type Link interface {
	// Name of this replica.
	Name() string
	// Topic is called before the Link starts, and returns the same Topic for the same name.
	Topic(name string) Topic
	// Replicas are the others, by name: those that are known and those that were heard and are not gone.
	Replicas() []Replica
	// Settled is closed once each replica that is known at the start was heard, or was not
	// within some seconds.
	Settled() <-chan struct{}
}

// Limits of one topic of a replica, and of one value. What one topic has takes no room from another.
const (
	MaxKeys       = 20_000
	MaxBytes      = 32 << 20
	MaxValueBytes = 512 << 10
	MaxKeyBytes   = 1 << 10
)

// Update is a new value of a key, that it has none, or one that is not told.
type Update struct {
	Topic   string `json:"topic"`
	Key     string `json:"key"`
	Value   []byte `json:"value,omitempty"`
	Deleted bool   `json:"deleted,omitempty"`
	Unknown bool   `json:"unknown,omitempty"`
}

// size is what an Update is counted as.
func (u Update) size() int { return len(u.Topic) + len(u.Key) + len(u.Value) }

// Frame is one message to a follower. An empty one says that the sender lives.
type Frame struct {
	// Name and Version of the sender.
	Name    string   `json:"name"`
	Version string   `json:"version,omitempty"`
	Updates []Update `json:"updates,omitempty"`
	// Whole: with this Frame the follower has all that the sender had when it began.
	Whole bool `json:"whole,omitempty"`
	// Leaving: the sender stops soon.
	Leaving bool `json:"leaving,omitempty"`
}
