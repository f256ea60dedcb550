package memberapi

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/fleet"
)

// model is the truth that a watcher must arrive at, and watchers in any state.
type model struct {
	state    *State
	now      time.Time
	truth    map[fleet.ObjectName]string
	watchers []*watcher
	n        int
	limit    limit
}

// watcher does what client-go's Reflector does: it lists, watches from there, watches
// again from the last version that it saw, and lists again when that is expired.
type watcher struct {
	cluster fleet.ClusterName
	watch   *Watch
	view    map[fleet.ObjectName]string
	listed  map[fleet.ObjectName]string // while listing
	present map[fleet.ObjectName]bool   // since the list began
}

func (m *model) member(name string, patterns ...v1alpha1.NamespacePattern) v1alpha1.MemberCluster {
	return v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:   v1alpha1.MemberClusterSpec{Accepted: true, Region: "us", Imports: &v1alpha1.MemberImportRules{Namespaces: patterns}},
		Status: v1alpha1.MemberClusterStatus{Credential: &v1alpha1.MemberCredential{ID: "aaaaaaaaaa", Kind: v1alpha1.CredentialCertificate}}}
}

func (m *model) apply(c Changes) { m.state.Apply(c, m.now) }

func (m *model) write(name fleet.ObjectName) {
	m.n++
	text := fmt.Sprint(m.n)
	m.state.set(m.state.Slices, name, func() content { return content{rest: []byte(text)} }, content{rest: []byte("gone")}, &Touched{})
	m.truth[name] = text
}

func (m *model) remove(name fleet.ObjectName) {
	m.state.remove(m.state.Slices, name, fleet.ServiceName{}, m.now, &Touched{})
	delete(m.truth, name)
	for _, w := range m.watchers {
		delete(w.present, name)
	}
}

func (m *model) list(w *watcher) {
	reader := m.state.Reader(w.cluster)
	if reader == nil {
		w.watch = nil
		return
	}
	w.watch = NewWatch(reader, m.state.Slices, "")
	w.listed, w.present = map[fleet.ObjectName]string{}, map[fleet.ObjectName]bool{}
	for name := range m.truth {
		if reader.Sees(name.Namespace) {
			w.present[name] = true
		}
	}
}

// read reads what comes next, once.
func (m *model) read(t *rapid.T, w *watcher) (more bool) {
	if w.watch == nil {
		m.list(w)
		return w.watch != nil
	}
	w.watch.limit = m.limit
	events, more, err := w.watch.Next(m.state)
	if errors.Is(err, ErrExpired) || errors.Is(err, ErrRevoked) {
		w.watch = nil
		return !errors.Is(err, ErrRevoked)
	}
	for _, e := range events {
		view := w.view
		if w.listed != nil {
			view = w.listed
		}
		switch e.Type {
		case Listed:
			for name := range w.present {
				if _, ok := w.listed[name]; !ok {
					t.Fatalf("%s is not in the list, and was there all the time", name)
				}
			}
			w.view, w.listed, w.present = w.listed, nil, nil
		case Deleted:
			delete(view, e.Object.Name)
		default:
			if _, known := view[e.Object.Name]; !known && e.Type == Modified {
				t.Fatalf("%s is modified, and the watcher does not have it", e.Object.Name)
			}
			if !w.watch.reader.Sees(e.Object.Name.Namespace) {
				t.Fatalf("%s sees %s", w.cluster, e.Object.Name)
			}
			view[e.Object.Name] = string(e.Object.encoded().rest)
		}
	}
	return more
}

// Whatever objects, MemberClusters and watchers do, in whatever order, a watcher that
// reads on has what its member may see, and a list misses nothing that was there.
func TestWatchersArriveAtTheTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{state: New(Start(noon, 7), nil), now: noon, truth: map[fleet.ObjectName]string{}}
		m.limit = limit{rapid.IntRange(1, 4).Draw(t, "events"), 1 << 20, rapid.IntRange(1, 4).Draw(t, "scanned")}
		m.state.Slices.maxKept = rapid.IntRange(0, 5).Draw(t, "bytes that are kept")
		patterns := rapid.SampledFrom([]v1alpha1.NamespacePattern{"shop", "team-*", "*", "team-1"})
		allowed := map[string]v1alpha1.NamespacePattern{"a": "*", "b": "shop"}
		members := func() *[]v1alpha1.MemberCluster {
			var all []v1alpha1.MemberCluster
			for name, pattern := range allowed {
				all = append(all, m.member(name, pattern))
			}
			return &all
		}
		m.apply(Changes{Members: members()})
		for i := range 4 {
			m.watchers = append(m.watchers, &watcher{cluster: fleet.ClusterName([]string{"a", "b"}[i%2]), view: map[fleet.ObjectName]string{}})
		}
		names := rapid.Custom(func(t *rapid.T) fleet.ObjectName {
			return fleet.ObjectName{Namespace: rapid.SampledFrom([]string{"shop", "team-1", "team-2"}).Draw(t, "namespace"), Name: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")}
		})
		watcherAt := rapid.IntRange(0, len(m.watchers)-1)
		t.Repeat(map[string]func(*rapid.T){
			"write":  func(t *rapid.T) { m.write(names.Draw(t, "object")) },
			"remove": func(t *rapid.T) { m.remove(names.Draw(t, "object")) },
			"time": func(t *rapid.T) {
				m.now = m.now.Add(deletedAge / 2)
				m.apply(Changes{})
			},
			"member": func(t *rapid.T) {
				allowed[rapid.SampledFrom([]string{"a", "b"}).Draw(t, "member")] = patterns.Draw(t, "pattern")
				m.apply(Changes{Members: members()})
			},
			"read": func(t *rapid.T) { m.read(t, m.watchers[watcherAt.Draw(t, "watcher")]) },
			"list": func(t *rapid.T) { m.list(m.watchers[watcherAt.Draw(t, "watcher")]) },
			"resume": func(t *rapid.T) {
				w := m.watchers[watcherAt.Draw(t, "watcher")]
				if reader := m.state.Reader(w.cluster); w.watch != nil && w.listed == nil && reader != nil {
					w.watch = ResumedWatch(reader, m.state.Slices, "", w.watch.Position().Version)
				}
			},
		})
		for _, w := range m.watchers {
			for w.watch == nil || m.read(t, w) {
				if w.watch == nil {
					m.read(t, w)
				}
			}
			want := map[fleet.ObjectName]string{}
			for name, text := range m.truth {
				if m.state.Reader(w.cluster).Sees(name.Namespace) {
					want[name] = text
				}
			}
			if !maps.Equal(w.view, want) {
				t.Fatalf("%s has %v, want %v", w.cluster, w.view, want)
			}
		}
	})
}

var noon = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
