package registration

import (
	"bytes"
	"cmp"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/url"
	"regexp"
	"strings"
	"time"
	"unicode"
)

// maxJoinToken is how long the text of a token may be: a CA bundle and a JWT are a few KiB.
const maxJoinToken = 64 << 10

// JoinToken is what `crossway token create` prints and `crossway join` reads: where
// the hub is, whom to trust there, who joins, and the token of its join account.
type JoinToken struct {
	// Server is the URL of the hub's API server.
	Server string `json:"server"`
	// CA is the PEM bundle that the certificate of Server is signed by.
	CA []byte `json:"ca"`
	// Member is the MemberCluster that joins. Either it or EdgePool is set.
	Member string `json:"member,omitempty"`
	// EdgePool and Zone are those of edges that join.
	EdgePool string `json:"edgePool,omitempty"`
	Zone     string `json:"zone,omitempty"`
	// Token is a token of the join account (a JWT).
	Token string `json:"token"`
}

// errNoJoinToken is about a text that is no token at all.
var errNoJoinToken = errors.New("this is no join token, or only a part of one: copy all that `crossway token create` printed")

// Encode returns the token as one line of text.
func (t JoinToken) Encode() (string, error) {
	if err := t.validate(); err != nil {
		return "", err
	}
	text, err := json.Marshal(t)
	if err != nil {
		return "", fmt.Errorf("encode join token: %w", err)
	}
	return base64.RawURLEncoding.EncodeToString(text), nil
}

// DecodeJoinToken reads a token's text, which may be broken into lines. Its errors
// say what to do, and have no part of the token in them.
func DecodeJoinToken(text string) (JoinToken, error) {
	if len(text) > maxJoinToken {
		return JoinToken{}, errNoJoinToken
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) || r == '=' { // the padding that other encoders add
			return -1
		}
		return r
	}, text)
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return JoinToken{}, errNoJoinToken
	}
	var t JoinToken
	decoder := json.NewDecoder(bytes.NewReader(decoded))
	if err := decoder.Decode(&t); err != nil {
		return JoinToken{}, errNoJoinToken
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return JoinToken{}, errNoJoinToken
	}
	return t, t.validate()
}

var (
	labelPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	jwtPattern   = regexp.MustCompile(`^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$`)
)

// validate returns what is wrong with a token.
func (t JoinToken) validate() error {
	u, err := url.Parse(t.Server)
	switch {
	case err != nil, u.Scheme != "https", u.Hostname() == "", u.User != nil, u.RawQuery != "", u.Fragment != "":
		return errors.New("the join token has no URL like https://hub.example:6443 of the hub's API server: make a new one with `crossway token create`")
	case !isCABundle(t.CA):
		return errors.New("the join token has no CA certificate of the hub's API server: make a new one with `crossway token create`")
	case (t.Member == "") == (t.EdgePool == ""):
		return errors.New("the join token names neither a MemberCluster nor an EdgePool, or both: make a new one with `crossway token create`")
	case t.Member != "" && !clusterPattern.MatchString(t.Member), t.EdgePool != "" && !labelPattern.MatchString(t.EdgePool),
		t.Zone != "" && !labelPattern.MatchString(t.Zone):
		return errors.New("the join token names a MemberCluster, EdgePool or zone that cannot exist: make a new one with `crossway token create`")
	case !jwtPattern.MatchString(t.Token):
		return errNoJoinToken
	}
	return nil
}

// TokenClaims are what the token of a ServiceAccount says of itself.
type TokenClaims struct {
	User         string
	Issued, Ends time.Time
}

// ReadToken reads the token of a ServiceAccount (a JWT). It verifies nothing: the API server does.
func ReadToken(token string) (TokenClaims, error) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return TokenClaims{}, errors.New("the token is not a JWT")
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return TokenClaims{}, fmt.Errorf("decode the token: %w", err)
	}
	var claims struct {
		Sub           string
		Iat, Nbf, Exp int64
	}
	if err := json.Unmarshal(payload, &claims); err != nil {
		return TokenClaims{}, fmt.Errorf("decode the token: %w", err)
	}
	return TokenClaims{User: claims.Sub, Issued: time.Unix(cmp.Or(claims.Iat, claims.Nbf), 0), Ends: time.Unix(claims.Exp, 0)}, nil
}

// isCABundle tells whether a text is PEM certificates, at least one, and nothing else.
func isCABundle(text []byte) bool {
	count := 0
	for rest := bytes.TrimSpace(text); len(rest) > 0; count++ {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return false
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return false
		}
		rest = bytes.TrimSpace(rest)
	}
	return count > 0
}
