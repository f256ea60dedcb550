package gateway

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
	corev1 "k8s.io/api/core/v1"
	"pgregory.net/rapid"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleet"
	"crossway.dev/crossway/pkg/gateway/model"
)

func must(t *rapid.T, same bool, format string, args ...any) {
	if !same {
		t.Fatalf(format, args...)
	}
}

// outcome is the Model and the reports of an Input.
type outcome struct {
	Model   model.Model
	Reports []condition.Report
}

func result(in Input) outcome { return outcomeOf(Build(in)) }

func outcomeOf(r Result) outcome { return outcome{r.Model, Report(r, nil)} }

// The order of objects does not change the result, and Build does not change them.
func TestOrderNeverMatters(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Draw(t, "in")
		in.Memo = nil
		before := copyInput(in)
		first := result(in)
		must(t, reflect.DeepEqual(in, before), "Build changed its input")

		other := copyInput(in)
		shuffle(t, other.Gateways)
		shuffle(t, other.Routes)
		shuffle(t, other.Grants)
		shuffle(t, other.Secrets)
		shuffle(t, other.Imports)
		shuffle(t, other.Services)
		shuffle(t, other.Policies)
		shuffle(t, other.Parameters)
		shuffle(t, other.ServiceImports)
		shuffle(t, other.Pools)
		second := result(other)
		must(t, reflect.DeepEqual(first, second), "order matters:\n%s%s\nor\n%s%s", describeModel(first.Model), describeReports(first.Reports, "", ""),
			describeModel(second.Model), describeReports(second.Reports, "", ""))
		must(t, reflect.DeepEqual(Allocate(in), Allocate(other)), "order matters to Allocate")
	})
}

func shuffle[T any](t *rapid.T, objects []T) {
	copy(objects, rapid.Permutation(slices.Clone(objects)).Draw(t, "order"))
}

// Reports have only conditions of ConditionTypes: the writer removes no others when
// a later report does not have them.
func TestConditionTypes(t *testing.T) {
	inputs := genInput(t)
	reported := map[string]bool{}
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Draw(t, "in")
		in.CRDVersion = "v1.6.0"
		for _, r := range Report(Build(in), nil) {
			all := slices.Clone(r.Conditions)
			for _, l := range r.Listeners {
				all = append(all, l.Conditions...)
			}
			for _, p := range r.Parents {
				all = append(all, p.Conditions...)
			}
			for _, c := range all {
				reported[c.Type] = true
			}
		}
	})
	for kind := range reported {
		if !slices.Contains(ConditionTypes(), kind) {
			t.Errorf("%s is reported and never removed", kind)
		}
	}
}

// The cached result of a certificate check counts only for that version of the Secret.
func TestMemoOfCertificates(tb *testing.T) {
	inputs := genInput(tb)
	rapid.Check(tb, func(t *rapid.T) {
		last := inputs.Draw(t, "last")
		in := copyInput(last)
		for i := range in.Secrets {
			in.Secrets[i].ResourceVersion = rapid.SampledFrom([]string{"good", "mismatch"}).Draw(t, "certificate")
			in.Secrets[i].Data = certificate(tb, in.Secrets[i].ResourceVersion)
		}
		without := result(in)
		in.Memo = Build(last).Memo
		must(t, reflect.DeepEqual(without, result(in)), "a Memo changes the result")
		in.Memo = Build(in).Memo
		must(t, reflect.DeepEqual(without, result(in)), "its own Memo changes the result")
	})
}

// A Memo's results of routes count only while every other input is the same. A Memo
// may be used by more than one Build.
func TestMemoOfRoutes(tb *testing.T) {
	inputs := genInput(tb)
	rapid.Check(tb, func(t *rapid.T) {
		last, other := inputs.Draw(t, "last"), inputs.Draw(t, "other")
		last.Memo = nil
		wanted := result(last)
		in := last
		in.Routes = slices.Clone(last.Routes)
		for i := range in.Routes {
			if rapid.Bool().Draw(t, "changed") {
				in.Routes[i] = revised(in.Routes[i], func(r *gatewayv1.HTTPRoute) { r.Spec = genRoute(t).Spec })
				if rapid.Bool().Draw(t, "earlier") {
					in.Routes[i] = in.Routes[i].WithEarlier(last.Routes[i])
				}
			}
		}
		if len(in.Routes) > 0 && rapid.Bool().Draw(t, "deleted") {
			i := rapid.IntRange(0, len(in.Routes)-1).Draw(t, "which")
			in.Routes = slices.Delete(in.Routes, i, i+1)
		}
		for _, replace := range []func(){
			func() { in.GatewayClasses = nil }, func() { in.Gateways = other.Gateways }, func() { in.Parameters = other.Parameters },
			func() { in.Grants = other.Grants }, func() { in.Namespaces = nil }, func() { in.Secrets = other.Secrets },
			func() { in.Imports = other.Imports }, func() { in.ServiceImports = other.ServiceImports }, func() { in.Services = other.Services },
			func() { in.Policies = other.Policies }, func() { in.Pools = other.Pools },
			func() { in.CRDVersion = other.CRDVersion },
		} {
			if rapid.IntRange(0, 7).Draw(t, "replaced") == 7 { // most often one, or none
				replace()
			}
		}
		without := result(in)
		last.Memo = Build(last).Memo
		in.Memo = last.Memo
		with := result(in)
		must(t, reflect.DeepEqual(without, with), "a Memo is used although other inputs changed")
		in.Memo = Build(in).Memo
		must(t, reflect.DeepEqual(without, result(in)), "its own Memo changes the result")
		must(t, reflect.DeepEqual(wanted, result(last)), "a Build changed a Memo")
		must(t, reflect.DeepEqual(without, with), "a Build changed the result of another through their Memo")
	})
}

// A rule that becomes invalid changes no other rule, no other object's report and
// no assignment of another route.
func TestBadRuleAffectsNothingElse(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Filter(func(in Input) bool {
			return slices.ContainsFunc(in.Routes, func(r *Route) bool { return len(objectOf(r).Spec.Rules) > 0 })
		}).Draw(t, "in")
		in.GatewayClasses[0].Spec.ParametersRef = nil // a route that is not served leaves room for others
		good := Build(in)
		bad := copyInput(in)
		var route *gatewayv1.HTTPRoute
		for i := range bad.Routes {
			if object := objectOf(bad.Routes[i]); len(object.Spec.Rules) > 0 {
				route = object
			}
		}
		rule := rapid.IntRange(0, len(route.Spec.Rules)-1).Draw(t, "rule")
		route.Spec.Rules[rule].Filters = append(slices.Clone(route.Spec.Rules[rule].Filters), gatewayv1.HTTPRouteFilter{Type: gatewayv1.HTTPRouteFilterExtensionRef})
		ref := FromHTTPRoute(route).Ref
		spoiled := Build(bad)

		others := func(m model.Model) string {
			var kept model.Model
			for _, l := range m.Listeners {
				l.Chains = slices.Clone(l.Chains)
				for i, c := range l.Chains {
					c.Hosts = slices.Clone(c.Hosts)
					for j, h := range c.Hosts {
						c.Hosts[j].Rules = slices.DeleteFunc(slices.Clone(h.Rules), func(r model.Rule) bool { return r.Origin.Route == ref && r.Origin.Rule == rule })
					}
					l.Chains[i] = c
				}
				kept.Listeners = append(kept.Listeners, l)
			}
			for _, a := range m.Assignments {
				if a.Route != ref {
					kept.Assignments = append(kept.Assignments, a)
				}
			}
			kept.Secrets, kept.Imports = m.Secrets, m.Imports
			return ordinals.ReplaceAllString(describeModel(kept), "$1") // the route's ordinals depend on its other rules
		}
		must(t, others(good.Model) == others(spoiled.Model), "other rules changed:\n%s\nis now\n%s", others(good.Model), others(spoiled.Model))
		otherReports := func(reports []condition.Report) string {
			var kept []condition.Report
			for _, r := range reports {
				if r.Ref.Object() != ref {
					r.Listeners = slices.Clone(r.Listeners)
					for i := range r.Listeners {
						r.Listeners[i].AttachedRoutes = 0 // counts only accepted routes
					}
					kept = append(kept, r)
				}
			}
			return describeReports(kept, "", "")
		}
		must(t, otherReports(Report(good, nil)) == otherReports(Report(spoiled, nil)), "other reports changed")
	})
}

var ordinals = regexp.MustCompile(`(/[0-9a-f]{10})-[0-9]+`)

// A certificate that becomes invalid changes only the chains that serve it. These
// then reject connections, and are never removed.
func TestBadCertificateAffectsNothingElse(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Filter(func(in Input) bool { return len(in.Secrets) > 0 }).Draw(t, "in")
		bad := copyInput(in)
		bad.Secrets[0].Data, bad.Secrets[0].ResourceVersion = map[string][]byte{"tls.crt": []byte("junk")}, "junk"
		name := bad.Secrets[0].Namespace + "/" + bad.Secrets[0].Name
		good, spoiled := Build(in).Model, Build(bad).Model
		must(t, len(good.Listeners) == len(spoiled.Listeners), "a listener vanished")
		for i := range good.Listeners {
			for j, c := range good.Listeners[i].Chains {
				now := spoiled.Listeners[i].Chains[j]
				switch {
				case !slices.Contains(c.Secrets, name):
					must(t, reflect.DeepEqual(c, now), "chain %s changed", c.Name)
				case len(c.Secrets) == 1:
					must(t, now.Reject && now.ServerName == c.ServerName && now.Hosts == nil, "chain %s does not reject", c.Name)
				}
			}
		}
	})
}

// A Model has no value that Envoy would reject or would interpret differently.
func TestModelIsValidForEnvoy(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		m := Build(inputs.Draw(t, "in")).Model
		keys := map[string]bool{}
		for _, a := range m.Assignments {
			must(t, !keys[a.Key], "assignment %s twice", a.Key)
			keys[a.Key] = true
			must(t, keyPattern.MatchString(a.Key), "key %q", a.Key)
			sum, services := uint64(0), map[fleet.ServiceName]bool{}
			for _, b := range a.Backends {
				sum += uint64(b.Weight)
				must(t, !services[b.Backend.Name], "%s twice in one assignment", b.Backend)
				services[b.Backend.Name] = true
			}
			must(t, sum > 0 && sum < 1<<32, "assignment weights sum to %d", sum)
		}
		secrets := map[string]bool{}
		for _, s := range m.Secrets {
			must(t, certificateProblem(&corev1.Secret{Data: map[string][]byte{"tls.crt": s.Certificate, "tls.key": s.PrivateKey}}) == "", "secret %s", s.Name)
			secrets[s.Name] = true
		}
		ports := map[string]bool{}
		for _, l := range m.Listeners {
			port := fmt.Sprint(l.Gateway, l.Port)
			must(t, !ports[port] && l.Port > 0 && len(l.Chains) > 0, "listener %s twice, or without chains", port)
			ports[port] = true
			checkChains(t, l, keys, secrets)
		}
	})
}

var keyPattern = regexp.MustCompile(`^[a-z0-9./-]{1,200}$`)

func checkChains(t *rapid.T, l model.Listener, keys, secrets map[string]bool) {
	names, servers := map[string]bool{}, map[string]bool{}
	for _, c := range l.Chains {
		must(t, !names[c.Name] && !servers[c.ServerName], "chain %s or server name %q twice", c.Name, c.ServerName)
		names[c.Name], servers[c.ServerName] = true, true
		must(t, (l.Protocol == model.HTTPS && !c.Reject) == (len(c.Secrets) > 0), "chain %s has certificates %v", c.Name, c.Secrets)
		for _, s := range c.Secrets {
			must(t, secrets[s], "secret %s is not in the Model", s)
		}
		domains := map[string]bool{}
		for _, d := range c.Misdirected {
			must(t, !domains[d], "domain %s twice", d)
			domains[d] = true
		}
		for _, h := range c.Hosts {
			must(t, !domains[h.Hostname] && (h.Hostname == anyHost || validHostname(h.Hostname)), "domain %q twice or wrong", h.Hostname)
			domains[h.Hostname] = true
			for i := range h.Rules {
				checkRule(t, &h.Rules[i], keys)
				must(t, i == 0 || matchOrder(&h.Rules[i-1].Match, &h.Rules[i].Match) <= 0, "rules of %s are not in order", h.Hostname)
			}
		}
	}
}

func checkRule(t *rapid.T, r *model.Rule, keys map[string]bool) {
	actions := 0
	for _, set := range []bool{r.Forward != nil, r.Redirect != nil, r.Respond != nil} {
		if set {
			actions++
		}
	}
	must(t, actions == 1, "%d actions in %+v", actions, r.Origin)
	if r.Match.Path.Kind == model.PathRegex {
		must(t, new(regexes).problem(r.Match.Path.Value) == "", "regex in %+v", r.Origin)
	} else {
		must(t, strings.HasPrefix(r.Match.Path.Value, "/") && !strings.ContainsAny(r.Match.Path.Value, "?#\n"), "path in %+v", r.Origin)
	}
	for _, h := range slices.Concat(r.Request.Set, r.Response.Set) {
		must(t, httpguts.ValidHeaderFieldName(h.Name) && h.Name != "host" && !strings.ContainsAny(h.Value, "\r\n"), "header in %+v", r.Origin)
	}
	if r.Forward != nil {
		sum := uint64(0)
		for _, target := range r.Forward.Targets {
			must(t, target.Assignment == "" || keys[target.Assignment], "no assignment %q", target.Assignment)
			sum += uint64(target.Weight)
		}
		must(t, sum > 0 && sum < 1<<32, "target weights sum to %d", sum)
	}
	for _, mirror := range r.Mirrors {
		must(t, keys[mirror.Assignment] && mirror.Numerator <= mirror.Denominator, "mirror in %+v", r.Origin)
	}
}

// The keys of names at their length limits have at most 200 characters. Different
// routes have different keys.
func TestLongNames(t *testing.T) {
	backends := []model.WeightedBackend{{Backend: fleet.Backend{Kind: fleet.Import, Name: fleet.ServiceName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("s", 63)}}, Port: 65535}}
	keys := map[string]bool{}
	for _, last := range []string{"a", "b"} {
		key := assignmentKey(fleet.RouteRef{Kind: condition.HTTPRoute, Name: fleet.ObjectName{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("r", 252) + last}}, model.HTTP1, backends) + "-4095"
		if !keyPattern.MatchString(key) || keys[key] {
			t.Errorf("key %q of %d characters", key, len(key))
		}
		keys[key] = true
	}
}

// A Gateway keeps an allocated address as long as it exists. It has at most one
// address of each pool, and no two Gateways have the same address.
func TestAllocationsAreKept(t *testing.T) {
	inputs := genInput(t)
	rapid.Check(t, func(t *rapid.T) {
		in := inputs.Draw(t, "in")
		given := map[string]string{}
		for range 3 {
			for _, pool := range Allocate(in) {
				for i := range in.Pools {
					if in.Pools[i].Name == pool.Name {
						in.Pools[i] = pool
					}
				}
			}
			taken := map[string]string{}
			for _, pool := range in.Pools {
				for _, a := range pool.Status.Allocations {
					key := pool.Name + " " + allocationOwner(a).String()
					must(t, given[key] == "" || given[key] == a.Address, "%s had %s and has %s", key, given[key], a.Address)
					must(t, taken[a.Address] == "", "%s and %s have %s", taken[a.Address], key, a.Address)
					given[key], taken[a.Address] = a.Address, key
				}
			}
			in.Gateways = slices.DeleteFunc(in.Gateways, func(gatewayv1.Gateway) bool { return rapid.IntRange(0, 3).Draw(t, "gone") == 0 })
			for key := range given {
				_, owner, _ := strings.Cut(key, " ")
				if !slices.ContainsFunc(in.Gateways, func(g gatewayv1.Gateway) bool { return g.Namespace+"/"+g.Name == owner }) {
					delete(given, key)
				}
			}
		}
	})
}

func copyInput(in Input) Input {
	in.Gateways = copyAll(in.Gateways, (*gatewayv1.Gateway).DeepCopyInto)
	in.Routes = slices.Clone(in.Routes)
	for i := range in.Routes {
		in.Routes[i] = FromHTTPRoute(objectOf(in.Routes[i]).DeepCopy())
	}
	in.Secrets = copyAll(in.Secrets, (*corev1.Secret).DeepCopyInto)
	in.Grants, in.Imports = slices.Clone(in.Grants), slices.Clone(in.Imports)
	in.Services, in.Policies, in.Pools = slices.Clone(in.Services), slices.Clone(in.Policies), slices.Clone(in.Pools)
	in.Parameters, in.ServiceImports = slices.Clone(in.Parameters), slices.Clone(in.ServiceImports)
	for i := range in.Imports {
		in.Imports[i] = *in.Imports[i].DeepCopy()
	}
	for i := range in.Pools {
		in.Pools[i] = *in.Pools[i].DeepCopy()
	}
	return in
}

func copyAll[T any](objects []T, into func(*T, *T)) []T {
	if objects == nil {
		return nil
	}
	copied := make([]T, len(objects))
	for i := range objects {
		into(&objects[i], &copied[i])
	}
	return copied
}
