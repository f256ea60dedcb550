package main

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/lbsync/server"
	"crossway.dev/crossway/pkg/replica"
)

const (
	// reachedTopic has by cluster from which regions its pods answered requests lately.
	reachedTopic = "reached"
	// reachedLife is how long that counts. Edges report each second while there are requests.
	reachedLife = 30 * time.Second
	// reachedInterval is between two words to other replicas about one cluster.
	reachedInterval = 5 * time.Second
)

// reached is from which regions edges got answers of which clusters, by what they report
// of their requests. It explains the silence of an agent, and moves nothing.
type reached struct {
	topic replica.Topic // nil: there are no other replicas
	now   func() time.Time
	// isMember says whether a cluster is a member: an edge may invent others.
	isMember func(fleet.ClusterName) bool

	mu sync.Mutex // guards the rest
	// own is what edges of this replica reported, and others what other replicas say.
	own, others reports
	told        map[fleet.ClusterName]time.Time // not after reachedLife
	forgotten   time.Time                       // when told was looked through last
}

// reports have when each cluster was reached last from each region.
type reports map[fleet.ClusterName]map[string]time.Time

// maxReached is of how many clusters reports are kept: an edge may invent names.
const maxReached = 1000

// note takes a report. Those that are too old go.
func (r reports) note(cluster fleet.ClusterName, now time.Time, regions ...string) {
	if len(r) >= maxReached && r[cluster] == nil {
		clear(r)
	}
	if r[cluster] == nil {
		r[cluster] = map[string]time.Time{}
	}
	for _, region := range regions {
		r[cluster][region] = now
	}
	maps.DeleteFunc(r[cluster], func(_ string, at time.Time) bool { return now.Sub(at) > reachedLife })
}

// reachedWord is what one replica says of a cluster.
type reachedWord struct {
	At      time.Time `json:"at"` // of the teller's clock: only that it is another word counts
	Regions []string  `json:"regions"`
}

func newReached(links replica.Link, isMember func(fleet.ClusterName) bool) *reached {
	r := &reached{now: time.Now, isMember: isMember, own: reports{}, others: reports{}, told: map[fleet.ClusterName]time.Time{}}
	if links != nil {
		r.topic = links.Topic(reachedTopic)
		r.topic.Subscribe(replica.Observer{Changed: func(_, cluster string, value []byte) {
			var word reachedWord
			if json.Unmarshal(value, &word) == nil { // else another version of the hub made it
				r.mu.Lock()
				defer r.mu.Unlock()
				r.others.note(fleet.ClusterName(cluster), r.now(), word.Regions...)
			}
		}})
	}
	return r
}

// observe takes a report of an edge's requests.
func (r *reached) observe(region string, report server.LoadReport) {
	clusters := map[fleet.ClusterName]bool{}
	for _, c := range report.Clusters {
		for _, l := range c.Localities {
			if cluster, _, ok := strings.Cut(l.SubZone, "/"); ok && l.Success > 0 {
				clusters[fleet.ClusterName(cluster)] = true
			}
		}
	}
	maps.DeleteFunc(clusters, func(cluster fleet.ClusterName, _ bool) bool { return !r.isMember(cluster) })
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.forget(now)
	for cluster := range clusters {
		r.own.note(cluster, now, region)
		if last, told := r.told[cluster]; r.topic != nil && now.Sub(last) >= reachedInterval && (told || len(r.told) < maxReached) {
			r.told[cluster] = now
			r.tell(cluster, now)
		}
	}
}

// forget stops telling of clusters that were not reached lately: a replica that connects
// later would take such a word for one that has just come, and a topic has room for a
// number of keys. r.mu is held.
func (r *reached) forget(now time.Time) {
	if now.Sub(r.forgotten) < reachedInterval {
		return
	}
	r.forgotten = now
	for cluster, at := range r.told {
		if now.Sub(at) > reachedLife {
			delete(r.told, cluster)
			r.topic.Delete(string(cluster))
		}
	}
}

// isMember says whether there is a MemberCluster.
func isMember(objects client.Reader) func(fleet.ClusterName) bool {
	return func(cluster fleet.ClusterName) bool {
		var m v1alpha1.MemberCluster
		return objects.Get(context.Background(), client.ObjectKey{Name: string(cluster)}, &m, client.UnsafeDisableDeepCopy) == nil
	}
}

// tell says to other replicas what this one has from its own edges. r.mu is held.
func (r *reached) tell(cluster fleet.ClusterName, now time.Time) {
	word := reachedWord{At: now, Regions: slices.Sorted(maps.Keys(r.own[cluster]))}
	if value, err := json.Marshal(word); err == nil {
		r.topic.Set(string(cluster), value)
	}
}

// regions are those from which the cluster was reached lately, sorted.
func (r *reached) regions(cluster fleet.ClusterName) []string {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	lately := map[string]bool{}
	for _, all := range []reports{r.own, r.others} {
		for region, at := range all[cluster] {
			if now.Sub(at) <= reachedLife {
				lately[region] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(lately))
}
