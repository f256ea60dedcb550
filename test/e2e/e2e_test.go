package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	ctrl "sigs.k8s.io/controller-runtime"

	"crossway.dev/crossway/internal/demo"
	"crossway.dev/crossway/internal/lab"
)

var story *demo.Story

func TestMain(m *testing.M) {
	lab.Enter(lab.Entry{Race: true, HubFaults: true, HubNext: true})
	ctrl.SetLogger(logr.Discard()) // clients of controller-runtime ask for one
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	fleet, err := lab.Start(ctx, lab.Config{LogDir: os.Getenv("CROSSWAY_LAB_LOGS")}, os.Stdout)
	if err != nil {
		return 1, err
	}
	defer fleet.Close()
	if err := fleet.Install(ctx, lab.InstallOptions{}); err != nil {
		return 1, err
	}
	story = demo.New(fleet, os.Stdout)
	story.Times = demo.Brief
	if err := story.SetUp(ctx); err != nil {
		return 1, err
	}
	return m.Run(), nil
}

// timed figures are judged ten times wider here, and so is what a machine that stalls does to a constant demand.
func timed(figure string) bool {
	return strings.HasSuffix(figure, "_share_points") || strings.HasSuffix(figure, "_seconds") || strings.HasSuffix(figure, "_ms")
}

func TestStory(t *testing.T) {
	bounds := map[string]demo.Bound{}
	for _, b := range demo.Bounds {
		switch {
		case b.Figure == "replica_share_points": // wider for what a machine that is busy does to clients; the demand of one side counted twice is 17
			b.High = []float64{5}
		case timed(b.Figure):
			b.High = []float64{10 * b.High[0]}
		}
		bounds[b.Figure] = b
	}
	for _, step := range demo.Steps {
		t.Run(step.Name, func(t *testing.T) {
			if err := story.Tell(t.Context(), step); err != nil {
				t.Error(err)
			}
			for _, figure := range step.Figures {
				if broken := bounds[figure].Broken(story.Figures); broken != "" {
					t.Error(broken)
				}
			}
		})
	}
}
