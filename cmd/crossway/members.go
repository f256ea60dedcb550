package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/duration"
	"k8s.io/client-go/rest"

	"crossway.dev/crossway/api/v1alpha1"
	"crossway.dev/crossway/pkg/condition"
	"crossway.dev/crossway/pkg/fleetload"
	"crossway.dev/crossway/pkg/fleetload/reader"
	"crossway.dev/crossway/pkg/registration"
)

// loadTimeout is how long members waits for the live numbers.
const loadTimeout = 15 * time.Second

func membersCommand(a *app) *cobra.Command {
	o := &membersOptions{app: a}
	c := &cobra.Command{
		Use:   "members [MEMBER]",
		Short: "Lists the members with what they serve now",
		Long: `Lists the members: whether they are ready, what they export, when their agent's
certificate ends, and from the hub's replicas what they serve now:

  REASON    by whose word it is ready or not: Gossip, Lease and DataPlane are about its
            agent, other reasons about what is refused of it; SINCE when
  SHARE     the part of the requests of each region's clients that it answers
  REQ/S     the requests per second that it answers, of all regions
  CAPACITY  what it takes of the imports that have a rate (BackendPolicy), per second
  ROOM      what is free of that
  DRAINED   how much of its share crossway drain has moved away`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeMembers(a),
		RunE:              func(c *cobra.Command, given []string) error { return o.run(c.Context(), given) },
	}
	o.output = a.outputFlags(c)
	return c
}

type membersOptions struct {
	*app
	output *output
}

// membersResult is the list of members.
type membersResult struct {
	Members []memberResult `json:"members"`
}

// memberResult is one member; Load is absent where the hub's replicas did not say it.
type memberResult struct {
	Name           string            `json:"name"`
	Region         string            `json:"region"`
	Ready          bool              `json:"ready"`
	Reason         string            `json:"reason,omitempty"`
	Message        string            `json:"message,omitempty"`
	Since          string            `json:"since,omitempty"`
	Exports        int32             `json:"exports"`
	Endpoints      int32             `json:"endpoints"`
	CertificateEnd string            `json:"certificateEnd,omitempty"`
	Load           *fleetload.Member `json:"load,omitempty"`
}

func (o *membersOptions) run(ctx context.Context, given []string) error {
	hub, config, err := o.clientOf(o.kubeconfig)
	if err != nil {
		return err
	}
	var all v1alpha1.MemberClusterList
	if err := hub.List(ctx, &all); err != nil {
		return fmt.Errorf("list MemberClusters: %w", err)
	}
	if len(given) > 0 {
		m, err := memberNamed(ctx, hub, given[0])
		if err != nil {
			return err
		}
		all.Items = []v1alpha1.MemberCluster{*m}
	}
	load, err := o.load(ctx, config)
	if err != nil {
		o.progress.say("No live numbers: %v", withAdvice(err))
	} else if note := unreadNote(*load); note != "" {
		o.progress.say("%s", note)
	}
	result := membersResult{Members: []memberResult{}}
	for i := range all.Items {
		result.Members = append(result.Members, resultOf(&all.Items[i], load))
	}
	return o.output.print("Members", &result, func(out io.Writer) error { return result.text(out, time.Now()) })
}

// load reads the live numbers from the hub's replicas; nil: there are none.
func (a *app) load(ctx context.Context, config *rest.Config) (*fleetload.Load, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	r, err := reader.New(config, a.namespace())
	if err != nil {
		return nil, err
	}
	defer r.Close()
	load, err := r.Read(ctx)
	if err != nil {
		return nil, err
	}
	return &load, nil
}

func resultOf(m *v1alpha1.MemberCluster, load *fleetload.Load) memberResult {
	r := memberResult{Name: m.Name, Region: m.Spec.Region, Exports: m.Status.Exports, Endpoints: m.Status.Endpoints}
	if c := meta.FindStatusCondition(m.Status.Conditions, condition.MemberReadyType); c != nil {
		r.Ready, r.Reason, r.Message = c.Status == metav1.ConditionTrue, c.Reason, c.Message
		r.Since = c.LastTransitionTime.UTC().Format(time.RFC3339)
	}
	if has := registration.InForce(m); has != nil && has.ExpirationTime != nil {
		r.CertificateEnd = has.ExpirationTime.UTC().Format(time.RFC3339)
	}
	if load != nil {
		member := load.Of(m.Name)
		r.Load = &member
	}
	return r
}

// text prints the members as a table.
func (r membersResult) text(out io.Writer, now time.Time) error {
	if len(r.Members) == 0 {
		fmt.Fprintln(out, "The fleet has no members: crossway token create <member> --region <region>")
		return nil
	}
	rows := [][]string{{"NAME", "REGION", "READY", "REASON", "SINCE", "EXPORTS", "ENDPOINTS", "CERTIFICATE", "SHARE", "REQ/S", "CAPACITY", "ROOM", "DRAINED"}}
	for _, m := range r.Members {
		certificate := "-"
		if end, err := time.Parse(time.RFC3339, m.CertificateEnd); err == nil {
			certificate = "ended"
			if end.After(now) {
				certificate = duration.HumanDuration(end.Sub(now))
			}
		}
		since := "-"
		if at, err := time.Parse(time.RFC3339, m.Since); err == nil {
			since = duration.HumanDuration(now.Sub(at))
		}
		ready := "False"
		if m.Ready {
			ready = "True"
		}
		rows = append(rows, append([]string{m.Name, m.Region, ready, orDash(m.Reason), since, strconv.Itoa(int(m.Exports)), strconv.Itoa(int(m.Endpoints)), certificate}, live(m.Load)...))
	}
	return columns(out, rows)
}

// live are the columns of the live numbers.
func live(l *fleetload.Member) []string {
	if l == nil {
		return []string{"-", "-", "-", "-", "-"}
	}
	shares := ""
	for _, s := range l.Shares {
		if s.Demand > 0 {
			shares += fmt.Sprintf(",%s:%.0f%%", s.Region, 100*s.Part)
		}
	}
	capacity, room := "-", "-" // no import of it has a rate
	if l.Capacity > 0 {
		capacity, room = fleetload.Number(l.Capacity), fleetload.Number(l.Room)
	}
	drained := "-"
	if l.Drained > 0 {
		drained = fmt.Sprintf("%.0f%%", 100*l.Drained)
	}
	if shares != "" {
		shares = shares[1:]
	}
	return []string{orDash(shares), fleetload.Number(l.Requests), capacity, room, drained}
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
