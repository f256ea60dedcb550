package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"crossway.dev/crossway/pkg/fleetload"
)

// maxShown is how many imports a message names.
const maxShown = 10

// foretell says what becomes of the member's requests, with numbers.
func (d *drainer) foretell(ctx context.Context) {
	load, err := d.load(ctx)
	if err != nil {
		d.progress.say("Warning: the load of the fleet cannot be read, so it is not known whether the others have room: %v", err)
		return
	}
	if note := unreadNote(load); note != "" {
		d.progress.say("%s", note)
	}
	shown, more := 0, 0
	for _, room := range load.RoomWithout(d.member) {
		if note := room.Note(); note != "" {
			if shown++; shown <= maxShown {
				d.progress.say("%s", note)
			} else {
				more++
			}
		}
	}
	if more > 0 {
		d.progress.say("and %d more imports", more)
	}
	d.warn(noRoom(load, d.member))
}

// unreadNote says which replicas of the hub did not say their load; "": all did.
func unreadNote(load fleetload.Load) string {
	if len(load.Unread) == 0 {
		return ""
	}
	return "Warning: these replicas of the hub could not be read; the numbers are those of another one: " + strings.Join(load.Unread, "; ")
}

// noRoom are the imports of which the others cannot take the requests.
func noRoom(load fleetload.Load, member string) []fleetload.Room {
	var out []fleetload.Room
	for _, room := range load.RoomWithout(member) {
		if room.Warning() != "" {
			out = append(out, room)
		}
	}
	return out
}

// warn says which imports have no room that had some when it was last called, and which have some again.
func (d *drainer) warn(rooms []fleetload.Room) {
	now := map[string]bool{}
	for _, room := range rooms {
		if now[room.Import] = true; !d.noRoom[room.Import] && len(now) <= maxShown {
			d.progress.end()
			d.progress.say("Warning: %s", room.Warning())
		}
	}
	for name := range d.noRoom {
		if !now[name] {
			d.progress.end()
			d.progress.say("import %s: the others have room again", name)
		}
	}
	d.noRoom = now
}

// look says what the member answers now, and whether that is the end: others get the percentage in force, and where it is
// 100 everything that they can take.
func (d *drainer) look(ctx context.Context, end, percent int32, result *drainResult) (reached bool) {
	load, err := d.load(ctx)
	if err != nil {
		d.progress.say("the load of the fleet cannot be read; the hub goes on: %v", err)
		return false
	}
	result.Drained, result.Load, result.Open, result.NoRoom = percent, load.Of(d.member), load.OpenOf(d.member), nil
	if end > 0 {
		result.NoRoom = noRoom(load, d.member)
	}
	d.warn(result.NoRoom)
	d.line = d.progress.show(progressLine(*result), d.line, time.Since(d.began))
	reached = math.Abs(result.Load.Drained-float64(end)/100) < 0.005
	for _, room := range load.RoomWithout(d.member) {
		if end == 100 && len(room.Others) > 0 && room.Moves > room.Demand/1000 {
			reached = false
		}
	}
	return reached
}

// progressLine is like "us-west: 40 % drained; answers 30 % of 210 requests/s in us, 0 % of 90 in eu; 3 open".
func progressLine(r drainResult) string {
	line := fmt.Sprintf("%s: %d %% drained; answers %s; %d open", r.Member, r.Drained, sharesText(r.Load), r.Load.Open)
	var parts []string
	for _, room := range r.NoRoom {
		if room.Demand == 0 || len(parts) == maxShown {
			continue
		}
		parts = append(parts, fmt.Sprintf("%s (%s requests/s, the others take %s)", room.Import, fleetload.Number(room.Demand), fleetload.Number(room.Capacity)))
	}
	if len(parts) == 0 {
		return line
	}
	return line + "; no room for " + strings.Join(parts, ", ")
}

func sharesText(load fleetload.Member) string {
	var parts []string
	for _, r := range load.Shares {
		if r.Demand > 0 {
			parts = append(parts, fmt.Sprintf("%.0f %% of %s requests/s in %s", 100*r.Part, fleetload.Number(r.Demand), r.Region))
		}
	}
	if len(parts) == 0 {
		return "nothing: there are no requests"
	}
	return strings.Join(parts, ", ")
}

// awaitIdle waits until the member has no open request, for at most a time, and says how many there are.
func (d *drainer) awaitIdle(ctx context.Context, limit time.Duration, result *drainResult) error {
	idle := 0
	for began := time.Now(); ; {
		load, err := d.load(ctx)
		switch {
		case err != nil && (ctx.Err() != nil || time.Since(began) >= limit):
			return err
		case err != nil:
			idle = 0
			d.line = d.progress.show(fmt.Sprintf("the load of the fleet cannot be read: %v", err), d.line, time.Since(d.began))
		case len(load.OpenOf(d.member)) == 0:
			result.Load, result.Open = load.Of(d.member), nil
			if idle++; idle == 2 { // edges report once a second
				return nil
			}
		default:
			idle, result.Load, result.Open = 0, load.Of(d.member), load.OpenOf(d.member)
			d.line = d.progress.show(fmt.Sprintf("%s: %d requests are open: %s", d.member, result.Load.Open, openText(result.Open)), d.line, time.Since(d.began))
		}
		if time.Since(began) >= limit {
			d.progress.end()
			return nil
		}
		if err := sleep(ctx, d.interval); err != nil {
			return err
		}
	}
}

func openText(open []fleetload.OpenRequests) string {
	var parts []string
	for i, o := range open {
		if i == maxShown {
			parts = append(parts, "...")
			break
		}
		parts = append(parts, fmt.Sprintf("%s %d", o.Import, o.Count))
	}
	return strings.Join(parts, ", ")
}

// print says in words what is left.
func (r drainResult) print(out io.Writer) error {
	var lines []string
	switch {
	case r.Drained == 0:
		lines = append(lines, fmt.Sprintf("%s is not drained: it gets its requests again", r.Member))
	case len(r.Open) > 0:
		lines = append(lines, fmt.Sprintf("%s is drained; %d requests are open there and go on until they end: %s", r.Member, r.Load.Open, openText(r.Open)))
	default:
		lines = append(lines, fmt.Sprintf("%s is drained; no request is open there", r.Member))
	}
	for _, room := range r.NoRoom {
		lines = append(lines, "Warning: "+room.Warning())
	}
	_, err := fmt.Fprintln(out, strings.Join(lines, "\n"))
	return err
}
