package registration

import (
	"crypto/rand"
	"encoding/base64"
	"strings"
	"testing"
	"time"
)

func caPEM(t *testing.T) []byte {
	t.Helper()
	ca, err := NewEdgeCA(time.Now(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ca.Certificate
}

// What is encoded is what is read, whatever a terminal or a mail did to the line.
func TestJoinToken(t *testing.T) {
	ca := caPEM(t)
	for _, want := range []JoinToken{
		{Server: "https://hub.example:6443", CA: ca, Member: "us-west", Token: "aaa.bbb.ccc"},
		{Server: "https://[2001:db8::1]:6443/k8s/clusters/hub", CA: append(ca, ca...), EdgePool: "us", Zone: "us-a", Token: "aaa.bbb.ccc"},
	} {
		text, err := want.Encode()
		if err != nil {
			t.Fatal(err)
		}
		for _, broken := range []string{text, text + "\n", "  " + text[:70] + "\r\n" + text[70:] + " ", text + "=="} {
			got, err := DecodeJoinToken(broken)
			if err != nil || got.Server != want.Server || string(got.CA) != string(want.CA) || got.Member != want.Member || got.EdgePool != want.EdgePool || got.Zone != want.Zone || got.Token != want.Token {
				t.Errorf("%q: %+v, %v", broken, got, err)
			}
		}
		for _, length := range []int{0, 1, len(text) / 2, len(text) - 1} {
			if got, err := DecodeJoinToken(text[:length]); err == nil {
				t.Errorf("the first %d of %d characters are %+v", length, len(text), got)
			}
		}
	}
}

// Nothing that somebody else made is a token, and no error shows a part of one.
func TestHostileJoinTokens(t *testing.T) {
	ca := base64.StdEncoding.EncodeToString(caPEM(t))
	good := `{"server":"https://hub.example","ca":"` + ca + `","member":"us-west","token":"aaa.secret.ccc"}`
	replaced := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("no %s", old)
		}
		return strings.Replace(good, old, with, 1)
	}
	if _, err := DecodeJoinToken(base64.RawURLEncoding.EncodeToString([]byte(good))); err != nil {
		t.Fatal(err)
	}
	for what, text := range map[string]string{
		"plain HTTP":            replaced("https:", "http:"),
		"no host":               replaced("https://hub.example", "https://"),
		"a user in the URL":     replaced("https://hub", "https://admin:secret@hub"),
		"a query":               replaced("hub.example", "hub.example?a=b"),
		"no CA":                 replaced(ca, ""),
		"a CA that is text":     replaced(ca, base64.StdEncoding.EncodeToString([]byte("secret"))),
		"a key beside the CA":   replaced(ca, base64.StdEncoding.EncodeToString(append(caPEM(t), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"...))),
		"both":                  replaced(`"member"`, `"edgePool":"us","member"`),
		"neither":               replaced("us-west", ""),
		"a path for a name":     replaced("us-west", "../us-west"),
		"a user for a name":     replaced("us-west", "us:west"),
		"a name of 51":          replaced("us-west", strings.Repeat("a", 51)),
		"a header in the token": replaced("aaa.secret.ccc", `aaa.secret.ccc\r\nHost: evil`),
		"half a token":          replaced("aaa.secret.ccc", "aaa.secret"),
		"another type":          replaced(`"us-west"`, "7"),
		"more after it":         good + good,
		"a list":                "[" + good + "]",
		"null":                  "null",
		"deep":                  strings.Repeat("[", 10000),
		"large":                 replaced("us-west", strings.Repeat("a", 100000)),
	} {
		got, err := DecodeJoinToken(base64.RawURLEncoding.EncodeToString([]byte(text)))
		if err == nil {
			t.Errorf("%s: %+v", what, got)
		} else if strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "crossway token create") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, text := range []string{"", "eyJ", "not base64 at all!", "\x00", good} {
		if got, err := DecodeJoinToken(text); err == nil {
			t.Errorf("%q: %+v", text, got)
		}
	}
}
