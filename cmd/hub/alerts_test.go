package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
	"crossway.dev/crossway/pkg/registration"
)

// Where the chart has its rules and its board.
const (
	alertsFile = "../../charts/hub/files/alerts.yaml"
	boardFile  = "../../charts/hub/files/board.json"
)

// Each shipped alert fires on what a real hub and a real edge say when that happens, and none on a fleet that is well.
// What they say is put before Prometheus' own rule engine (promtool) for half an hour. It is the first test of the package
// by the name of its file, since it wants a fleet without objects of others.
func TestAlerts(t *testing.T) {
	f := newFixture(t)
	w := &watched{fixture: f, t: t, metrics: freeAddress(t)}
	w.start()
	at, _ := f.serve()
	testkit.Run(t, w.renewLeases)
	w.credential("us-west")
	f.talk("us-west")
	testkit.Eventually(t, "gossip hears the member", func() bool { return w.says(`crossway_member_gossip_heard{member="us-west"} 1`) })
	testkit.Eventually(t, "the member to be ready", func() bool { return w.says(`crossway_member_condition{member="us-west", type="Ready"} 1`) })
	testkit.Eventually(t, "the credentials", func() bool { return strings.Count(strings.Join(w.hub(), "\n"), "crossway_credential_expiry") >= 6 })
	well := slices.Concat(w.hub(), w.edge())
	w.fires("all is well", well)
	w.fires("a loop is stuck", w.but(well, `crossway_stuck{.*part="the xDS server"`, "1"), "PartStuck program=crossway-hub")
	w.fires("a replica does not hear another one", w.but(well, `crossway_replica_known`, "1"), "HubReplicaSilent")
	w.fires("replicas follow different ones", slices.Concat(well, scrape{`crossway_shares_decided_by{instance="a", replica="a"} 1`, `crossway_shares_decided_by{instance="b", replica="b"} 1`}), "HubReplicasDisagree")
	w.fires("the edge CA is gone", w.but(well, `crossway_edge_ca_missing`, "1"), "EdgeCAMissing")
	for _, name := range []string{registration.XDSSecret, registration.ReplicaSecret, registration.MemberCASecret} {
		w.fires("Secret "+name+" is gone", w.without(well, `crossway_credential_expiry_timestamp_seconds{.*name="`+name), "CredentialMissing")
	}
	w.fires("each of two replicas has half of the edges that one may have", slices.Concat(well, scrape{`crossway_xds_connected_edges{instance="b", pool="us"} 1`}), "EdgesAtLimit pool=us")
	w.fires("a replica that does not lead knows only how it was", slices.Concat(w.but(well, `crossway_member_condition{.*type="Reachable"`, "0"), formerLeader), "MemberSilent member=us-west")
	w.fires("three replicas say the same", slices.Concat(well, threeReplicas))
	w.fires("nobody renews for 24 days", w.later(well, 24*24*time.Hour), "CredentialNotRenewed kind=edge", "CredentialNotRenewed kind=member")
	w.fires("nor for almost ten years", w.later(well, registration.EdgeCALife-20*24*time.Hour),
		"CredentialEndsSoon kind=ca", "CredentialEndsSoon kind=server", "CredentialNotRenewed kind=edge", "CredentialNotRenewed kind=member")

	w.breakAll(at)
	want := []string{
		"EdgesAtLimit pool=us", "EdgesRefuseConfiguration pool=us", "ImportDown import=shop/dead", "ImportWithoutEndpoints import=shop/empty",
		"ImportWithoutRoom import=shop/store", "MemberAtLimit member=us-west", "MemberExportsRefused member=ranges", "MemberGossipBlocked member=ranges", "MemberGossipBlocked member=taken", "MemberHeldOut import=shop/dead",
		"MemberIdentity member=ranges", "MemberNotReady member=taken", "MemberSilent member=silent", "MemberWithdrawalPaused member=ranges", "NoEdges pool=ap",
	}
	testkit.EventuallySeen(t, "all that is wrong to be said", func() (bool, any) {
		got := firing(t, slices.Concat(w.hub(), w.edge()))
		return slices.Equal(got, want), strings.Join(got, ", ")
	})

	f.stopHub()
	testkit.Eventually(t, "the edge knows that the hub is gone", func() bool { return strings.Contains(f.counters("connected_state"), "connected_state: 0") })
	w.fires("there is no hub", w.edge(), "EdgeWithoutHub", "HubNotLeading")
	w.start() // its Lease is still that of the hub before it
	testkit.Eventually(t, "a hub that does not lead", func() bool { return w.says(`crossway_leads{program="crossway-hub"} 0`) })
	if got := firing(t, w.hub()); !slices.Contains(got, "HubNotLeading") {
		t.Errorf("no replica leads, and firing are %q", got)
	}
	w.knows(alertsFile, boardFile)
	checkBoard(t)
}

// watched is a fleet that is scraped.
type watched struct {
	*fixture
	t       *testing.T
	metrics string // address of the hub's
	seen    map[string]bool
}

func (w *watched) start() {
	w.startHub("--metrics-addr="+w.metrics, "--max-edges=2", "--leader-elect", "--namespace=crossway-system")
}

// scrape is what Prometheus would store of one scrape, a line for each sample.
type scrape []string

// formerLeader is a replica that was cut off from its API server while all was well.
var formerLeader = scrape{
	`crossway_leads{instance="b", program="crossway-hub"} 0`,
	`crossway_member_condition{instance="b", member="us-west", type="Reachable"} 1`,
	`crossway_credential_expiry_timestamp_seconds{instance="b", kind="server", name="crossway-xds"} 9e+09`,
	`crossway_credential_expiry_timestamp_seconds{instance="b", kind="server", name="crossway-hub-replica"} 9e+09`,
	`crossway_credential_expiry_timestamp_seconds{instance="b", kind="ca", name="crossway-member-ca-0123456789"} 9e+09`,
}

// threeReplicas all know that half of what a cluster takes is asked for.
var threeReplicas = func() (s scrape) {
	for _, hub := range []string{"a", "b", "c"} {
		s = append(s, fmt.Sprintf(`crossway_import_demand_requests_per_second{import="shop/half", instance=%q, region="us"} 50`, hub),
			fmt.Sprintf(`crossway_import_capacity_requests_per_second{cluster="us-west", import="shop/half", instance=%q} 100`, hub))
	}
	return s
}()

func (w *watched) hub() scrape  { return w.scrape("http://" + w.metrics + "/metrics") }
func (w *watched) edge() scrape { return w.scrape("http://" + w.fixture.admin + "/stats/prometheus") }

func (w *watched) says(line string) bool { return slices.Contains(w.hub(), line) }

// scrape is nothing while the program does not answer.
func (w *watched) scrape(url string) (all scrape) {
	w.t.Helper()
	answer, err := http.Get(url)
	if err != nil {
		return nil
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	testkit.Must(w.t, err)
	if w.seen == nil {
		w.seen = map[string]bool{}
	}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		samples, err := expfmt.ExtractSamples(&expfmt.DecodeOptions{Timestamp: model.Now()}, families[name])
		testkit.Must(w.t, err)
		for _, s := range samples {
			w.seen[string(s.Metric["__name__"])] = true
			all = append(all, fmt.Sprintf("%s %v", s.Metric, s.Value))
		}
	}
	return all
}

// but is a scrape in which the series that match have another value.
func (w *watched) but(s scrape, pattern, value string) scrape {
	w.t.Helper()
	changed := slices.Clone(s)
	found := false
	for i, line := range changed {
		if regexp.MustCompile("^" + pattern).MatchString(line) {
			found, changed[i] = true, line[:strings.LastIndexByte(line, ' ')+1]+value
		}
	}
	if !found {
		w.t.Errorf("no series is like %s", pattern)
	}
	return changed
}

// without is a scrape that lacks the series that match.
func (w *watched) without(s scrape, pattern string) scrape {
	w.t.Helper()
	rest := slices.DeleteFunc(slices.Clone(s), regexp.MustCompile("^"+pattern).MatchString)
	if len(rest) == len(s) {
		w.t.Errorf("no series is like %s", pattern)
	}
	return rest
}

// later is a scrape in which all times are nearer.
func (w *watched) later(s scrape, by time.Duration) scrape {
	later := slices.Clone(s)
	for i, line := range later {
		if end := strings.LastIndexByte(line, ' '); isTime.MatchString(line) {
			var at float64
			_, err := fmt.Sscan(line[end:], &at)
			testkit.Must(w.t, err)
			later[i] = fmt.Sprintf("%s %f", line[:end], at-by.Seconds())
		}
	}
	return later
}

var isTime = regexp.MustCompile(`^[a-z_]*_timestamp_seconds[{ ]`)

func (w *watched) fires(when string, s scrape, want ...string) {
	w.t.Helper()
	if got := firing(w.t, s); !slices.Equal(got, want) {
		w.t.Errorf("%s: firing are\n\t%s\nwant\n\t%s", when, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// used is what is taken of a scrape: the metrics of the rules.
var used = regexp.MustCompile(`^(crossway_(leads|stuck|replica|edge_ca|member|credential|edgepool|xds_connected|gateway_refusing|import|shares)|envoy_control_plane_connected_state)`)

// firing are the alerts that fire after what is scraped has been so for half an hour, without their prefix.
func firing(t *testing.T, s scrape) []string {
	t.Helper()
	promtool, err := install.Promtool(t.Context(), os.Stderr)
	testkit.Must(t, err)
	rules, err := filepath.Abs(alertsFile)
	testkit.Must(t, err)
	type series struct {
		Series string `json:"series"`
		Values string `json:"values"`
	}
	var input []series
	for _, line := range s {
		name, value, _ := strings.Cut(line, "} ")
		if end := strings.LastIndexByte(line, ' '); !strings.Contains(line, "}") {
			name, value = line[:end], line[end+1:]
		} else {
			name += "}"
		}
		if !used.MatchString(name) {
			continue
		}
		if isTime.MatchString(line) { // promtool's time begins in 1970
			var at float64
			_, err := fmt.Sscan(value, &at)
			testkit.Must(t, err)
			value = fmt.Sprintf("%.0f", at-float64(time.Now().Unix()))
		}
		input = append(input, series{strings.ReplaceAll(name, `", `, `",`), value + "x35"})
	}
	// The expectation is wrong on purpose: promtool says then what fires.
	test, err := yaml.Marshal(map[string]any{"rule_files": []string{rules}, "evaluation_interval": "1m", "tests": []any{map[string]any{
		"interval": "1m", "input_series": input, "promql_expr_test": []any{map[string]any{
			"expr": `count by (alertname, program, kind, pool, import, member) (ALERTS{alertstate="firing"})`, "eval_time": "30m",
			"exp_samples": []any{map[string]any{"labels": `{nothing="fires"}`, "value": 1}}}}}}})
	testkit.Must(t, err)
	file := filepath.Join(t.TempDir(), "test.yaml")
	testkit.Must(t, os.WriteFile(file, test, 0o600))
	out, err := exec.CommandContext(t.Context(), promtool, "test", "rules", file).CombinedOutput()
	_, got, ok := strings.Cut(string(out), "got:")
	if err == nil || !ok && !strings.Contains(string(out), "nil") {
		t.Fatalf("promtool: %v\n%s", err, out)
	}
	var names []string
	for _, found := range regexp.MustCompile(`\{([^}]*alertname="Crossway[^}]*)\}`).FindAllStringSubmatch(got, -1) {
		labels := map[string]string{}
		for _, l := range regexp.MustCompile(`([a-z]+)="([^"]*)"`).FindAllStringSubmatch(found[1], -1) {
			labels[l[1]] = l[2]
		}
		name := strings.TrimPrefix(labels["alertname"], "Crossway")
		for _, label := range []string{"program", "kind", "pool", "import", "member"} {
			if labels[label] != "" {
				name += " " + label + "=" + labels[label]
			}
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// knows fails for each metric in a file that nobody exposes.
func (w *watched) knows(files ...string) {
	w.t.Helper()
	for _, file := range files {
		text, err := os.ReadFile(file)
		testkit.Must(w.t, err)
		named := regexp.MustCompile(`\b(crossway|envoy)_[a-z_]+\b`).FindAllString(string(text), -1)
		slices.Sort(named)
		for _, name := range slices.Compact(named) {
			if isLabel := strings.HasPrefix(name, "envoy_response_code") || strings.HasPrefix(name, "envoy_http_conn"); !isLabel && !w.seen[name] {
				w.t.Errorf("%s uses %s, which no program exposed", filepath.Base(file), name)
			}
		}
	}
}

// checkBoard has promtool check all queries of the board.
func checkBoard(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(boardFile)
	testkit.Must(t, err)
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	testkit.Must(t, json.Unmarshal(text, &board))
	var rules []any
	for _, p := range board.Panels {
		for _, q := range p.Targets {
			expr := strings.NewReplacer("$__rate_interval", "5m", "$import", ".*").Replace(q.Expr)
			rules = append(rules, map[string]any{"record": fmt.Sprintf("board:query%d", len(rules)), "expr": expr})
		}
	}
	if len(rules) < 10 {
		t.Errorf("the board has %d queries", len(rules))
	}
	file, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "board", "rules": rules}}})
	testkit.Must(t, err)
	path := filepath.Join(t.TempDir(), "board.yaml")
	testkit.Must(t, os.WriteFile(path, file, 0o600))
	promtool, err := install.Promtool(t.Context(), os.Stderr)
	testkit.Must(t, err)
	if out, err := exec.CommandContext(t.Context(), promtool, "check", "rules", path).CombinedOutput(); err != nil || bytes.Contains(out, []byte("FAILED")) {
		t.Errorf("queries of the board: %v\n%s", err, out)
	}
}

// renewLeases renews the Leases in all members' namespaces but that of member silent, as agents do.
func (w *watched) renewLeases(ctx context.Context) error {
	for ctx.Err() == nil {
		var all v1alpha1.MemberClusterList
		if w.List(ctx, &all) == nil {
			for _, m := range all.Items {
				if m.Name != "silent" {
					w.renew(ctx, m.Name)
				}
			}
		}
		select {
		case <-time.After(2 * time.Second):
		case <-ctx.Done():
		}
	}
	return nil
}

// renew renews one, if there is a namespace for it. The agent of member ranges asks for a word, and hears of a clone.
func (w *watched) renew(ctx context.Context, member string) {
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: v1alpha1.MemberNamespace(member), Name: v1alpha1.AgentLease}}
	if w.Get(ctx, client.ObjectKeyFromObject(lease), lease) != nil && w.Create(ctx, lease) != nil {
		return
	}
	lease.Spec.RenewTime = ptr.To(metav1.NowMicro())
	if member == "ranges" {
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, v1alpha1.AnnotationWithdrawalPaused, "11-of-12-20260101T080000Z")
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, v1alpha1.AnnotationClusterUID, "5d2f9b1c-0000-4000-8000-000000000001")
		metav1.SetMetaDataAnnotation(&lease.ObjectMeta, v1alpha1.AnnotationRefusedClusterUID,
			registration.Refusal{ClusterUID: "5d2f9b1c-0000-4000-8000-000000000002", Said: time.Now()}.String())
	}
	_ = w.Update(ctx, lease) // it is tried again
}

// credential says in the status of a member that it has a credential of a day.
func (w *watched) credential(member string) {
	w.t.Helper()
	status := fmt.Sprintf(`{"status":{"credential":{"id":"`+testkit.CredentialID+`","clusterUID":"u","kind":"Certificate","issuedTime":%q,"expirationTime":%q}}}`,
		time.Now().UTC().Format(time.RFC3339), time.Now().Add(24*time.Hour).UTC().Format(time.RFC3339))
	testkit.Must(w.t, w.Status().Patch(w.t.Context(), &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: member}},
		client.RawPatch("application/merge-patch+json", []byte(status))))
}

// breakAll makes what each alert is about, but for those of the hub itself.
func (w *watched) breakAll(at string) {
	t := w.t
	member := func(name string, cidrs ...string) *v1alpha1.MemberCluster {
		return &v1alpha1.MemberCluster{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.MemberClusterSpec{Accepted: true, Region: "us", EndpointCIDRs: cidrs}}
	}
	host, _ := backend(t)
	export := func(service, address string, port int32) []client.Object {
		e := &v1alpha1.MemberExport{ObjectMeta: metav1.ObjectMeta{Namespace: "member-us-west", Name: service + ".shop"}, Spec: v1alpha1.MemberExportSpec{
			Service: v1alpha1.ServiceReference{Namespace: "shop", Name: service}, ExportedAt: metav1.Now(), ServiceProperties: v1alpha1.ServiceProperties{Type: v1alpha1.ClusterSetIP},
			Ports: []v1alpha1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}}}}
		slice := sliceAt(client.ObjectKey{Namespace: "member-us-west", Name: service + "-1"}, address, "tcp-80", map[string]string{
			v1alpha1.LabelServiceName: service, v1alpha1.LabelServiceNamespace: "shop", v1alpha1.LabelSourceCluster: "us-west"})
		slice.Ports[0].Port = &port
		if address == "" {
			return []client.Object{e}
		}
		return []client.Object{e, slice}
	}
	route := func(name string) *gatewayv1.HTTPRoute {
		r := routeTo(name, name+".example.com")
		r.Spec.Rules[0].BackendRefs[0].Name = gatewayv1.ObjectName(name)
		return r
	}
	heavy := routeTo("heavy", "heavy.example.com")
	heavy.Spec.Rules[0].Matches = []gatewayv1.HTTPRouteMatch{{Path: &gatewayv1.HTTPPathMatch{Type: ptr.To(gatewayv1.PathMatchRegularExpression), Value: ptr.To("/heavy/[a-z]{150}")}}}
	w.make(slices.Concat(export("dead", host, 1), export("empty", "", 0), []client.Object{
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "member-taken"}},
		member("silent", "10.71.0.0/16"), member("taken", "10.72.0.0/16"), member("ranges"),
		&v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "ap"}, Spec: v1alpha1.EdgePoolSpec{Region: "ap", Addresses: []v1alpha1.AddressBlock{{CIDR: "127.77.9.0/24"}}}},
		route("dead"), route("empty"), heavy,
		&v1alpha1.BackendPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "store"}, Spec: v1alpha1.BackendPolicySpec{
			TargetRefs: []gatewayv1.LocalPolicyTargetReference{{Group: "multicluster.x-k8s.io", Kind: "ServiceImport", Name: "store"}},
			Capacity:   &v1alpha1.BackendCapacity{MaxRatePerEndpoint: 1}}},
	})...)
	t.Cleanup(func() { // for other tests on this API server
		testkit.Must(t, w.Delete(context.Background(), &v1alpha1.EdgePool{ObjectMeta: metav1.ObjectMeta{Name: "ap"}}))
		testkit.Must(t, w.DeleteAllOf(context.Background(), &gatewayv1.HTTPRoute{}, client.InNamespace("shop")))
		testkit.Must(t, w.DeleteAllOf(context.Background(), &v1alpha1.BackendPolicy{}, client.InNamespace("shop")))
	})
	testkit.Joined(t, w, "silent")
	testkit.Joined(t, w, "ranges")
	w.fixture.start(t.Context(), edge{pool: "us", node: "strict", admin: freeAddress(t), regexLimit: 100})
	var west v1alpha1.MemberCluster
	testkit.Must(t, w.Get(t.Context(), client.ObjectKey{Name: "us-west"}, &west))
	west.Spec.Exports.MaxExports = 3
	testkit.Must(t, w.Update(t.Context(), &west))
	for _, host := range []string{"store.example.com", "dead.example.com"} { // the latter are tried for seconds
		testkit.Run(t, func(ctx context.Context) error {
			for ctx.Err() == nil {
				ask(at, host, "/")
				time.Sleep(20 * time.Millisecond)
			}
			return nil
		})
	}
}
