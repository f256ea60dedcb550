package program

import (
	"bytes"
	"errors"
	"flag"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

type oneFlag struct{ name string }

func (o *oneFlag) Bind(flags *flag.FlagSet) { flags.StringVar(&o.name, "name", "", "a name") }

func (o *oneFlag) Validate() error {
	if o.name == "" {
		return errors.New("--name is missing")
	}
	return nil
}

func TestParse(t *testing.T) {
	for _, test := range []struct{ args, want string }{
		{"--name=a", ""},
		{"--name=a --log-level=debug", ""},
		{"--log-level=loud", "--name is missing\n--log-level \"loud\": use debug, info, warn or error"},
		{"--name=a more", `unexpected argument "more"`},
		{"--other", "flag provided but not defined: -other"},
		{"--version", errVersionAsked.Error()},
		{"--help", flag.ErrHelp.Error()},
	} {
		_, err := Parse("test", &oneFlag{}, strings.Fields(test.args), &bytes.Buffer{})
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", test.args, err, test.want)
		}
	}
}

// The log is JSON lines from the asked level on.
func TestParseMakesTheLog(t *testing.T) {
	var stderr bytes.Buffer
	log, err := Parse("test", &oneFlag{}, []string{"--name=a", "--log-level=warn"}, &stderr)
	testkit.Must(t, err)
	log.Info("below the level")
	log.Error(errors.New("cause"), "above the level")
	if got := stderr.String(); strings.Contains(got, "below") || !strings.Contains(got, `"msg":"above the level"`) {
		t.Errorf("logged %s", got)
	}
}

func TestVersion(t *testing.T) {
	if Version() == "" {
		t.Error("no version")
	}
	version = "v1.2.3"
	t.Cleanup(func() { version = "" })
	if got := Version(); got != "v1.2.3" {
		t.Errorf("version %q, want the one that the linker set", got)
	}
}
