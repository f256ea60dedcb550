package memberapi

import (
	"fmt"
	"strconv"
)

// Position is how far a reader has read: a version of one replica, and what that replica
// had seen of the hub's API server by then.
type Position struct {
	Version uint64
	// Seen is the last resourceVersion of a pushed slice on the hub. It means the same on
	// every replica, so that another one can tell whether it has seen as much.
	Seen uint64
}

// seenDigits is how many digits of a resourceVersion are Seen. The others are the
// Version, so that resourceVersions of one replica are ordered as they should be.
const seenDigits = 20

// String is the resourceVersion of a Position.
func (p Position) String() string { return string(p.append(nil)) }

func (p Position) append(text []byte) []byte {
	return fmt.Appendf(text, "%d%0*d", p.Version, seenDigits, p.Seen)
}

// ParsePosition reads a resourceVersion.
func ParsePosition(resourceVersion string) (p Position, err error) {
	if at := len(resourceVersion) - seenDigits; at > 0 {
		if p.Seen, err = strconv.ParseUint(resourceVersion[at:], 10, 64); err != nil {
			return p, err
		}
		resourceVersion = resourceVersion[:at]
	}
	p.Version, err = strconv.ParseUint(resourceVersion, 10, 64)
	return p, err
}
