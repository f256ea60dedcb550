package delta

// queue is a list of names, first in first out, each at most once.
type queue struct {
	names  []string
	head   int
	queued map[string]struct{}
}

func newQueue() queue { return queue{queued: map[string]struct{}{}} }

func (q *queue) empty() bool { return q.head == len(q.names) }

func (q *queue) add(name string) {
	if _, ok := q.queued[name]; ok {
		return
	}
	if q.head > len(q.names)/2 { // otherwise a queue that is never empty would grow
		q.names = q.names[:copy(q.names, q.names[q.head:])]
		q.head = 0
	}
	q.queued[name] = struct{}{}
	q.names = append(q.names, name)
}

func (q *queue) pop() string {
	name := q.names[q.head]
	q.head++
	delete(q.queued, name)
	return name
}
