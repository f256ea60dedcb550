package model

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"crossway.dev/crossway/internal/testkit"
)

// Text and JSON of a Model name its Secrets and never have their data.
func TestSecretsAreRedacted(t *testing.T) {
	m := Model{Secrets: []Secret{{Name: "infra/cert", Certificate: []byte("CERTIFICATE"), PrivateKey: []byte("KEY")}}}
	inJSON, err := json.Marshal(m)
	testkit.Must(t, err)
	for _, text := range []string{string(inJSON), fmt.Sprint(m), fmt.Sprintf("%v %+v %#v", m, m, m)} {
		if !strings.Contains(text, "infra/cert") {
			t.Errorf("the Secret is not named: %s", text)
		}
		for _, data := range []string{"CERTIFICATE", "KEY", base64.StdEncoding.EncodeToString([]byte("KEY"))} {
			if strings.Contains(text, data) {
				t.Errorf("%s has %s", text, data)
			}
		}
	}
}
