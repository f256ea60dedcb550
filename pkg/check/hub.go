package check

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/utils/ptr"
)

const (
	// clockTolerance is how much the clocks of this machine and the hub may differ
	// before that is worth a word.
	clockTolerance = 10 * time.Second
	// versionLabel has the version of a program in its Deployment's labels.
	versionLabel = "app.kubernetes.io/version"
	// bundleVersion is the Gateway API's annotation of its CRDs.
	bundleVersion = "gateway.networking.k8s.io/bundle-version"

	runInit = "run crossway hub init"
)

func hub(f Facts) []Finding {
	what := "Deployment " + f.Namespace + "/crossway-hub"
	d := f.Deployment
	if reason := f.Unread[UnreadDeployment]; reason != "" {
		return append([]Finding{unread(what, reason)}, clock(f)...)
	}
	if d == nil {
		return []Finding{wrong(what, "is --context the hub's? Else "+runInit, "does not exist")}
	}
	var out []Finding
	want, ready := ptr.Deref(d.Spec.Replicas, 1), d.Status.ReadyReplicas
	switch {
	case want == 0:
		out = append(out, wrong(what, "kubectl -n "+f.Namespace+" scale deployment crossway-hub --replicas=1", "is scaled to 0: edges keep what they have, and no change reaches them"))
	case ready < want:
		out = append(out, wrong(what, "kubectl -n "+f.Namespace+" describe pods -l app.kubernetes.io/name=crossway-hub; then its logs", "%d of %d replicas are ready", ready, want))
	default:
		out = append(out, ok(what, "%d of %d replicas are ready", ready, want))
	}
	if v := d.Labels[versionLabel]; known(f.Version) && v != "" && v != f.Version {
		out = append(out, warning(what, "use the crossway of the hub's version, or "+runInit, "is version %s, this command %s", v, f.Version))
	}
	if url := argument(d, "--member-api-url"); url == "" {
		out = append(out, warning("member API", "crossway hub init --set memberAPI.url=https://<address of Service crossway-hub>:18001", "the hub announces none, so members import nothing"))
	} else {
		out = append(out, ok("member API", "announced as %s", url))
	}
	return slices.Concat(out, replicas(f), leader(f), clock(f))
}

// replicas are the findings of what replicas of the hub say of each other, where there are
// several.
func replicas(f Facts) []Finding {
	const what = "replicas of the hub"
	switch reason := f.Unread[UnreadReplicas]; {
	case f.Deployment.Status.ReadyReplicas < 2:
		return nil
	case len(f.Deaf) > 0:
		return []Finding{wrong(what, "do the network and its policies let the hub's pods reach each other on port 18003? Then the logs of those that are not heard",
			"%s: shares may differ, and statuses lack edges of those that are not heard", strings.Join(f.Deaf, "; "))}
	case reason != "":
		return []Finding{warning(what, "reading their metrics wants role crossway-load-reader, and pods that are ready", "could not be read: %s", reason)}
	}
	return []Finding{ok(what, "hear each other")}
}

// leader are the findings of the replica that writes statuses.
func leader(f Facts) []Finding {
	what := "Lease " + f.Namespace + "/" + LeaseName
	if reason := f.Unread[UnreadLease]; reason != "" {
		return []Finding{unread(what, reason)}
	}
	if old, since := statusesAreOld(f); old {
		return []Finding{wrong(what, "see the logs of the hub's pods, and whether they reach their API server",
			"no replica leads%s: nothing that is said of members and edges is new", since)}
	}
	return []Finding{ok(what, "%s leads", ptr.Deref(f.Lease.Spec.HolderIdentity, ""))}
}

// LeaseName is the name of the Lease of the replica that leads.
const LeaseName = "crossway-hub"

// statusesAreOld says whether nobody writes statuses, and since when (" since ..."; "":
// nobody ever did). What cannot be read is not known.
func statusesAreOld(f Facts) (old bool, since string) {
	if f.Unread[UnreadLease] != "" || f.Unread[UnreadDeployment] != "" || f.Deployment == nil {
		return false, ""
	}
	l := f.Lease
	if l == nil || l.Spec.RenewTime == nil {
		return true, ""
	}
	life := time.Duration(ptr.Deref(l.Spec.LeaseDurationSeconds, 0)) * time.Second
	held := ptr.Deref(l.Spec.HolderIdentity, "") != "" && !f.Now.After(l.Spec.RenewTime.Add(life+clockTolerance))
	return !held, " since " + l.Spec.RenewTime.UTC().Format(time.RFC3339)
}

// asOf makes warnings of what is well by statuses that nobody writes now.
func asOf(f Facts, all []Finding) []Finding {
	old, since := statusesAreOld(f)
	for i := range all {
		if old && all[i].Level == OK {
			all[i] = warning(all[i].What, "", "no replica of the hub leads%s; before: %s", since, all[i].Message)
		}
	}
	return all
}

// argument is the value of a flag of the hub; "": it has none.
func argument(d *appsv1.Deployment, flag string) string {
	for _, c := range d.Spec.Template.Spec.Containers {
		for _, a := range c.Args {
			if value, found := strings.CutPrefix(a, flag+"="); found {
				return value
			}
		}
	}
	return ""
}

// hubCIDRs are the hub's own ranges, as far as they are known.
func hubCIDRs(d *appsv1.Deployment) (out []netip.Prefix) {
	if d == nil {
		return nil
	}
	for text := range strings.SplitSeq(argument(d, "--hub-cidrs"), ",") {
		if p, err := netip.ParsePrefix(text); err == nil {
			out = append(out, p)
		}
	}
	return out
}

// clock is a finding only where this machine's clock is off.
func clock(f Facts) []Finding {
	if apart := f.Local.Sub(f.Now).Round(time.Second).Abs(); apart > clockTolerance {
		return []Finding{warning("clock of this machine", "set it by NTP", "differs by %s from the clock of the hub's API server", apart)}
	}
	return nil
}

// unread is the finding of what somebody else would see.
func unread(what, reason string) Finding {
	return warning(what, "run check as somebody who may read it", "could not be read: %s", reason)
}

// known tells whether a version can be compared.
func known(v string) bool { return v != "" && v != "(devel)" && !strings.Contains(v, "dirty") }

func crds(f Facts) []Finding {
	if reason := f.Unread[UnreadCRDs]; reason != "" {
		return []Finding{unread("CRDs", reason)}
	}
	var out []Finding
	for _, set := range f.Sets {
		out = append(out, crdSet(f, set))
	}
	return out
}

// crdSet is the finding of one API: what is missing, then what is of another version.
func crdSet(f Facts, set CRDs) Finding {
	var missing, other []string
	bundle := ""
	for i := range set.Want {
		want := &set.Want[i]
		have := f.CRDs[want.Name]
		switch {
		case have == nil:
			missing = append(missing, want.Name)
		case set.Own && !sameSchemas(want, have):
			other = append(other, want.Name)
		case !set.Own && len(notServed(want, have)) > 0:
			other = append(other, fmt.Sprintf("%s (no %s)", want.Name, strings.Join(notServed(want, have), ", ")))
		case olderBundle(want, have):
			bundle = have.Annotations[bundleVersion]
		}
	}
	switch {
	case len(missing) > 0:
		return wrong(set.Title, runInit+": it installs them", "missing: %s", strings.Join(missing, ", "))
	case len(other) > 0 && set.Own:
		return wrong(set.Title, runInit+": it brings them to the version of this command", "of another version: %s", strings.Join(other, ", "))
	case len(other) > 0:
		return wrong(set.Title, "upgrade them with the tool that installed them; they are the cluster's own, so crossway does not change them", "too old: %s", strings.Join(other, ", "))
	case bundle != "":
		return warning(set.Title, "upgrade them with the tool that installed them", "version %s; Crossway is tested with %s", bundle, set.Want[0].Annotations[bundleVersion])
	}
	return ok(set.Title, "%d of %d are there", len(set.Want), len(set.Want))
}

// notServed are the versions that are served of want and not of have.
func notServed(want, have *apiextensionsv1.CustomResourceDefinition) []string {
	var out []string
	for _, w := range want.Spec.Versions {
		if w.Served && !slices.ContainsFunc(have.Spec.Versions, func(h apiextensionsv1.CustomResourceDefinitionVersion) bool { return h.Name == w.Name && h.Served }) {
			out = append(out, w.Name)
		}
	}
	return out
}

func sameSchemas(want, have *apiextensionsv1.CustomResourceDefinition) bool {
	return slices.EqualFunc(want.Spec.Versions, have.Spec.Versions, func(a, b apiextensionsv1.CustomResourceDefinitionVersion) bool {
		return a.Name == b.Name && reflect.DeepEqual(a.Schema, b.Schema)
	})
}

// olderBundle tells whether the Gateway API of the cluster is of an older minor version.
func olderBundle(want, have *apiextensionsv1.CustomResourceDefinition) bool {
	w, errWant := version.ParseGeneric(want.Annotations[bundleVersion])
	h, errHave := version.ParseGeneric(have.Annotations[bundleVersion])
	return errWant == nil && errHave == nil && (h.Major() < w.Major() || h.Major() == w.Major() && h.Minor() < w.Minor())
}
