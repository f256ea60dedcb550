package replica

// Observers are those of each topic.
type Observers map[string][]Observer

// Knows says whether anybody reads a topic.
func (o Observers) Knows(topic string) bool { return len(o[topic]) > 0 }

// Update tells what changed in the maps of another replica.
func (o Observers) Update(replica string, updates []Update) {
	for _, u := range updates {
		for _, observer := range o[u.Topic] {
			switch {
			case u.Deleted:
				if observer.Deleted != nil {
					observer.Deleted(replica, u.Key)
				}
			case u.Unknown:
				if observer.Unknown != nil {
					observer.Unknown(replica, u.Key)
				}
			case observer.Changed != nil:
				observer.Changed(replica, u.Key, u.Value)
			}
		}
	}
}

// Change tells what became of another replica.
func (o Observers) Change(replica string, change Change) {
	for _, observers := range o {
		for _, observer := range observers {
			if call := observer.of(change); call != nil {
				call(replica)
			}
		}
	}
}

// of is the call for a Change; nil: none.
func (o Observer) of(change Change) func(replica string) {
	switch change {
	case NowHeard:
		return o.Heard
	case NowSilent:
		return o.Silent
	case NowLeaving:
		return o.Leaving
	case NowGone:
		return o.Gone
	case NoChange:
	}
	return nil
}
