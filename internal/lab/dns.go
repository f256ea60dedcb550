package lab

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/lab/load"
)

//go:embed dns.yaml
var dnsManifests string

// InstallDNS installs the CRDs of mcs-api and CoreDNS in every cluster: the name
// server that the pods' resolv.conf names. It returns when all of them answer.
// CoreDNS waits for the CRDs, so they come first.
func (l *Lab) InstallDNS(ctx context.Context) error {
	module, err := install.ModuleDir(ctx, "sigs.k8s.io/mcs-api")
	if err != nil {
		return err
	}
	crds, err := concatenate(filepath.Join(module, "config/crd"))
	if err != nil {
		return err
	}
	return l.each(func(c *Cluster) error {
		if err := c.applyCRDs(ctx, crds); err != nil {
			return err
		}
		if err := c.Apply(ctx, []byte(strings.ReplaceAll(dnsManifests, "CLUSTER_IP", c.DNS))); err != nil {
			return err
		}
		return c.AwaitPods(ctx, "kube-system", "k8s-app=kube-dns", 1)
	})
}

// NameAnswer is what a name server said of a name: how it answered (NOERROR,
// NXDOMAIN), and the records of its answer, sorted, as "A 10.1.0.4",
// "SRV 80 store.shop.svc.clusterset.local.", "TXT 1.0.0".
type NameAnswer struct {
	Code    string
	Records []string
}

func (a NameAnswer) String() string {
	return strings.Join(append([]string{a.Code}, a.Records...), "; ")
}

// lookupTimeout is how long an answer may take.
const lookupTimeout = 5 * time.Second

// Lookup asks the cluster's name server for the records of one type, from where
// dial is. It is not a resolver: name is complete, and CNAMEs are not followed.
func (c *Cluster) Lookup(ctx context.Context, dial load.DialContext, kind dnsmessage.Type, name string) (NameAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout) // a datagram may be lost
	defer cancel()
	qname, err := dnsmessage.NewName(strings.TrimSuffix(name, ".") + ".")
	if err != nil {
		return NameAnswer{}, fmt.Errorf("name %q: %w", name, err)
	}
	question := dnsmessage.Message{Questions: []dnsmessage.Question{{Name: qname, Type: kind, Class: dnsmessage.ClassINET}}}
	query, err := question.Pack()
	if err != nil {
		return NameAnswer{}, err
	}
	conn, err := dial(ctx, "udp", net.JoinHostPort(c.DNS, "53"))
	if err != nil {
		return NameAnswer{}, err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if _, err := conn.Write(query); err != nil {
		return NameAnswer{}, err
	}
	packet := make([]byte, 64<<10)
	n, err := conn.Read(packet)
	if err != nil {
		return NameAnswer{}, fmt.Errorf("name server of %s, %s %s: %w", c.Name, kind, name, err)
	}
	var message dnsmessage.Message
	if err := message.Unpack(packet[:n]); err != nil {
		return NameAnswer{}, err
	}
	return nameAnswer(message), nil
}

func nameAnswer(m dnsmessage.Message) NameAnswer {
	a := NameAnswer{Code: strings.TrimPrefix(m.RCode.String(), "RCode")}
	for _, r := range m.Answers {
		switch body := r.Body.(type) {
		case *dnsmessage.AResource:
			a.Records = append(a.Records, "A "+net.IP(body.A[:]).String())
		case *dnsmessage.AAAAResource:
			a.Records = append(a.Records, "AAAA "+net.IP(body.AAAA[:]).String())
		case *dnsmessage.SRVResource:
			a.Records = append(a.Records, fmt.Sprintf("SRV %d %s", body.Port, body.Target))
		case *dnsmessage.PTRResource:
			a.Records = append(a.Records, "PTR "+body.PTR.String())
		case *dnsmessage.TXTResource:
			a.Records = append(a.Records, "TXT "+strings.Join(body.TXT, " "))
		default:
			a.Records = append(a.Records, fmt.Sprintf("%s %v", r.Header.Type, r.Body))
		}
	}
	slices.Sort(a.Records)
	return a
}
