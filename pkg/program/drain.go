package program

import (
	"context"
	"io"
	"math/rand/v2"
	"time"
)

// Drain closes connections one by one in random order, spread evenly over a time, so that
// their clients do not all connect elsewhere at once. Who calls it lets no new connections
// in.
func Drain[C interface {
	comparable
	io.Closer
}](ctx context.Context, over time.Duration, open func() []C) {
	end := time.Now().Add(over)
	closed := map[C]bool{}
	for {
		var left []C
		for _, c := range open() {
			if !closed[c] {
				left = append(left, c)
			}
		}
		if len(left) == 0 {
			return
		}
		one := left[rand.IntN(len(left))]
		closed[one] = true
		go func() { _ = one.Close() }() // which may wait for its client
		if len(left) == 1 {
			return
		}
		timer := time.NewTimer(time.Until(end) / time.Duration(len(left)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
	}
}
