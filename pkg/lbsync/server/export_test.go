package server

import "time"

// SetTimes are other times of a Spreader than its own.
func (p *Spreader) SetTimes(interval, minStay time.Duration) {
	p.interval, p.minStay = interval, minStay
}
