package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"crossway.dev/crossway/internal/lab"
	"crossway.dev/crossway/internal/testkit"
)

// page is a page of the documentation whose commands are run.
type page struct {
	testkit.T
	kubeconfig string
	blocks     []string // its indented paragraphs
}

// newPage reads a page. Its commands without a context are of us-west.
func newPage(t *testing.T, name string) *page {
	t.Helper()
	p := &page{T: testkit.T{TB: t}, kubeconfig: filepath.Join(t.TempDir(), "kubeconfig")}
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", name))
	p.Must(err)
	block := ""
	for line := range strings.Lines(string(text) + "end\n") {
		switch indented, ok := strings.CutPrefix(line, "    "); {
		case ok:
			block += indented
		case block != "":
			p.blocks, block = append(p.blocks, block), ""
		}
	}
	all := clientcmdapi.NewConfig()
	for _, name := range append([]string{"hub"}, memberNames...) {
		c, err := story.Lab.Cluster(name)
		p.Must(err)
		one := c.KubeconfigFor(c.REST.Host)
		all.Clusters[name], all.AuthInfos[name], all.Contexts[name] = one.Clusters[name], one.AuthInfos[name], one.Contexts[name]
	}
	all.CurrentContext = "us-west"
	p.Must(clientcmd.WriteToFile(*all, p.kubeconfig))
	return p
}

// block is the one block that begins with a text.
func (p *page) block(begin string) string {
	p.Helper()
	for _, b := range p.blocks {
		if strings.HasPrefix(b, begin) {
			return b
		}
	}
	p.Fatalf("the page has no block that begins with %q", begin)
	return ""
}

// commands are the commands of a block: a command ends with its line, or goes on after a
// backslash, and to the end of a here-document.
func commands(block string) (all []string) {
	command, end := "", ""
	for line := range strings.Lines(block) {
		command += line
		text := strings.TrimRight(line, "\n")
		if _, mark, ok := strings.Cut(text, "<<"); ok {
			end = mark
		} else if text == end {
			end = ""
		}
		if end == "" && !strings.HasSuffix(text, `\`) && strings.TrimSpace(command) != "" {
			all, command = append(all, command), ""
		}
	}
	return all
}

// run runs one command of a shell, and checks what it prints.
func (p *page) run(command, want string) {
	p.Helper()
	ctx, cancel := context.WithTimeout(p.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-ec", command)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+p.kubeconfig, "PATH="+story.Lab.Programs.Dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		p.Fatalf("%s: %v, want %q in\n%s", command, err, want, out)
	}
}

// Every command of docs/services.md, as it is written there.
func TestServicesPage(t *testing.T) {
	p := newPage(t, "services.md")
	hub, west := story.Lab.Hub, clusterNamed(t, "us-west")
	apply(t, west, strings.ReplaceAll(requestPod, "NAMESPACE", "shop"))
	testkit.Must(t, west.AwaitPods(t.Context(), "shop", "app=request", 1))
	exports, err := hub.Kubectl(t.Context(), nil, "get", "membercluster", "us-west", "-o", "jsonpath={.spec.exports}")
	testkit.Must(t, err)
	restore(t, func(ctx context.Context) error {
		_, err := hub.Kubectl(ctx, nil, "patch", "membercluster", "us-west", "--type=merge", "-p", `{"spec":{"imports":null,"exports":`+exports+`}}`)
		return err
	})
	wants := []struct{ block, begin, want string }{
		{"kubectl apply -f - <<YAML", "kubectl apply", "serviceexport.multicluster.x-k8s.io/store"},
		{"kubectl wait", "kubectl wait", "condition met"},
		{"kubectl wait", "kubectl describe", "Exported"},
		{`kubectl --context hub patch membercluster us-west --type=merge -p '{"spec": {"exports": {"namespaces": ["shop"]}}}'`, "kubectl", "patched"},
		{"kubectl get serviceimport -n shop ", "kubectl get serviceimport -n shop  ", "ClusterSetIP"},
		{"kubectl get serviceimport -n shop ", "kubectl get serviceimport -n shop store", "us-west"},
		{"kubectl get serviceimport -n shop ", "kubectl get endpointslices", "eu-west"},
		{"curl ", "curl ", `"cluster":"us-`},
		{"kubectl --context hub patch membercluster us-west --type=merge -p \\\n", "kubectl", "patched"},
	}
	for _, w := range wants {
		found := false
		for _, command := range commands(p.block(w.block)) {
			if !strings.HasPrefix(command, w.begin) {
				continue
			}
			found = true
			if strings.HasPrefix(command, "curl ") {
				command = "kubectl exec -n shop request -- " + command
			}
			p.run(command, w.want)
		}
		if !found {
			t.Errorf("the page has no command %q", w.begin)
		}
	}
	eventually(t, "us-west to have left the import in eu-west", func() (bool, string) {
		out, err := clusterNamed(t, "eu-west").Kubectl(t.Context(), nil, "get", "serviceimport", "-n", "shop", "store", "-o", "jsonpath={.status.clusters[*].cluster}")
		return err == nil && !strings.Contains(out, "us-west") && strings.Contains(out, "eu-west"), fmt.Sprint(out, err)
	})
	t.Run("names", func(t *testing.T) { namesOfPage(t, p, west) })
}

// namesOfPage makes a cluster's CoreDNS one without the zone, gives it what the page says,
// and asks it.
func namesOfPage(t *testing.T, p *page, c *lab.Cluster) {
	p.run(`kubectl patch clusterrole system:coredns --type=json -p '[{"op":"remove","path":"/rules/2"}]'`, "patched")
	restore(t, func(ctx context.Context) error { return story.Lab.InstallDNS(ctx) })
	var lines []string
	for line := range strings.Lines(p.block("  template IN TXT clusterset.local {")) {
		lines = append(lines, "    "+strings.TrimLeft(line, "+"))
	}
	corefile := ".:53 {\n    errors\n    ready\n" + strings.Join(lines, "") + "}\n"
	p.run("kubectl -n kube-system create configmap coredns --dry-run=client -o yaml --from-literal=Corefile=\"$(cat <<'COREFILE'\n"+corefile+"COREFILE\n)\" | kubectl apply --server-side --force-conflicts -f -", "configmap/coredns")
	for _, command := range commands(p.block("kubectl create clusterrole ")) {
		p.run(command, "coredns")
	}
	restore(t, func(ctx context.Context) error {
		_, err := c.Kubectl(ctx, nil, "delete", "clusterrole,clusterrolebinding", "coredns-clusterset")
		return err
	})
	p.run("kubectl -n kube-system rollout status deployment coredns --timeout=50s", "successfully rolled out")
	for _, q := range []struct {
		kind dnsmessage.Type
		name string
		want string // in the answer
	}{
		{dnsmessage.TypeA, "store.shop.svc.clusterset.local", "A 10."},
		{dnsmessage.TypeSRV, "_http._tcp.store.shop.svc.clusterset.local", "SRV 8080 store.shop.svc.clusterset.local."},
		{dnsmessage.TypeTXT, "dns-version.clusterset.local", "TXT 1.0.0"},
		{dnsmessage.TypeA, "none.shop.svc.clusterset.local", "NXDOMAIN"},
		{dnsmessage.TypeA, "us-west.store.shop.svc.clusterset.local", "NXDOMAIN"},
		{dnsmessage.TypeA, "store.shop.svc.cluster.local", "A 10."},
	} {
		eventually(t, fmt.Sprintf("%s %s to be answered with %q", q.kind, q.name, q.want), func() (bool, string) {
			answer, err := c.Lookup(t.Context(), c.DialerIn("shop", "request"), q.kind, q.name)
			return err == nil && (strings.Contains(answer.String(), q.want) || q.want == "NXDOMAIN" && answer.Code == "NameError"), fmt.Sprint(answer, err)
		})
	}
}
