package chaos

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// Act is a kind of thing that is done to the fleet.
type Act string

// The first two change what is exported. The others are faults, which end after Step.For.
const (
	Change    Act = "change"     // exports, withdraws or readdresses the part of Member of the imported Service
	Toggle    Act = "toggle"     // exports or withdraws the part of Member of the service that clients call
	KillHub   Act = "kill-hub"   // SIGKILL to one replica of the hub
	KillHubs  Act = "kill-hubs"  // SIGKILL to all
	KillAgent Act = "kill-agent" // SIGKILL to the agent of Member
	CutMember Act = "cut-member" // the uplink of Member
	CutHubs   Act = "cut-hubs"   // the network between the replicas of the hub
	CutGossip Act = "cut-gossip" // the network between the agents of Member and Other
	FreezeHub Act = "freeze-hub" // the hub's API server answers nothing
)

// Step is one thing that is done.
type Step struct {
	At            time.Duration // since the beginning
	Act           Act
	Member, Other string
	Replica       int // of KillHub
	Service       string
	Number        int           // chooses an address
	For           time.Duration // how long a fault lasts
}

func (s Step) String() string {
	return fmt.Sprintf("%5.1fs %s member=%q other=%q replica=%d service=%q number=%d for=%s",
		s.At.Seconds(), s.Act, s.Member, s.Other, s.Replica, s.Service, s.Number, s.For)
}

// target is what a fault is done to: two faults of one target do not overlap.
func (s Step) target() string { return fmt.Sprint(s.Act, s.Member, s.Other, s.Replica) }

// Shape is what plans are made of.
type Shape struct {
	Members, Services []string
	Replicas          int
	Over              time.Duration // the last step begins before
	LongestFault      time.Duration
}

// weights say how often each act is tried, of 20.
var weights = []struct {
	act Act
	n   int
}{{Change, 8}, {Toggle, 3}, {KillHub, 2}, {KillHubs, 1}, {KillAgent, 2}, {CutMember, 1}, {CutHubs, 1}, {CutGossip, 1}, {FreezeHub, 1}}

// Plan is the plan of a seed: the same seed and shape give the same plan.
func Plan(seed uint64, shape Shape) []Step {
	random := rand.New(rand.NewPCG(seed, 0))
	busy := map[string]time.Duration{}
	var out []Step
	for at := time.Duration(0); at < shape.Over; at += time.Duration(random.IntN(2000)) * time.Millisecond {
		s := Step{At: at, Act: anyAct(random)}
		first := random.IntN(len(shape.Members))
		other := (first + 1 + random.IntN(len(shape.Members)-1)) % len(shape.Members)
		replica, service, number := random.IntN(shape.Replicas), random.IntN(len(shape.Services)), 1+random.IntN(200)
		fault := time.Duration(200+random.IntN(int(shape.LongestFault.Milliseconds())-200)) * time.Millisecond
		switch s.Act {
		case Change:
			s.Member, s.Service, s.Number = shape.Members[first], shape.Services[service], number
		case Toggle:
			s.Member = shape.Members[first]
		case KillHub:
			s.Replica, s.For = replica, min(fault, 3*time.Second)
		case KillAgent:
			s.Member, s.For = shape.Members[first], min(fault, 3*time.Second)
		case KillHubs:
			s.For = min(fault, 3*time.Second)
		case CutGossip:
			pair := []string{shape.Members[first], shape.Members[other]}
			slices.Sort(pair)
			s.Member, s.Other, s.For = pair[0], pair[1], fault
		case CutMember:
			s.Member, s.For = shape.Members[first], fault
		default:
			s.For = fault
		}
		if s.Act == CutHubs && shape.Replicas < 2 || s.For > 0 && at < busy[s.target()] {
			continue
		}
		busy[s.target()] = at + s.For + time.Second
		out = append(out, s)
	}
	return out
}

func anyAct(random *rand.Rand) Act {
	sum := 0
	for _, w := range weights {
		sum += w.n
	}
	n := random.IntN(sum)
	for _, w := range weights {
		if n -= w.n; n < 0 {
			return w.act
		}
	}
	panic("unreachable: n is below the sum")
}
