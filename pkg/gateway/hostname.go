package gateway

import (
	"net/netip"
	"strings"
)

// anyHost is the Model's host that matches every name.
const anyHost = "*"

// validHostname accepts a DNS name in lower case, optionally with a leading "*.",
// as the API server does (apis/v1 Hostname).
func validHostname(name string) bool {
	return validPreciseHostname(strings.TrimPrefix(name, "*."))
}

// validPreciseHostname accepts a DNS name in lower case (RFC 1123, 253 characters).
func validPreciseHostname(name string) bool {
	if name == "" || len(name) > 253 {
		return false
	}
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
				return false
			}
		}
	}
	_, err := netip.ParseAddr(name)
	return err != nil // an IP address is not a hostname (apis/v1 Hostname)
}

// covers says whether every name that host matches is also matched by wide; both
// as in the Model. A wildcard covers any number of labels, but not the bare domain.
func covers(wide, host string) bool {
	if wide == anyHost || wide == host {
		return true
	}
	suffix, wildcard := strings.CutPrefix(wide, "*")
	return wildcard && len(host) > len(suffix) && strings.HasSuffix(host, suffix)
}

// intersection is the narrower of two hosts, or "" if they have no name in common.
func intersection(a, b string) string {
	switch {
	case covers(a, b):
		return b
	case covers(b, a):
		return a
	default:
		return ""
	}
}

// widerHosts yields host and then every host that covers it, the narrowest first.
func widerHosts(host string, yield func(string) bool) {
	if !yield(host) || host == anyHost {
		return
	}
	rest := strings.TrimPrefix(host, "*.")
	for {
		_, parent, found := strings.Cut(rest, ".")
		if rest = parent; !found {
			break
		}
		if !yield("*." + rest) {
			return
		}
	}
	yield(anyHost)
}
