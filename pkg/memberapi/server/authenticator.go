package server

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"time"
)

// expiryOf is when the credential of a request ends: that of its client certificate,
// or of a token that says it (RFC 7519, "exp"). Whether it is valid is for others to
// say. Zero: not known.
func expiryOf(r *http.Request) time.Time {
	token, isToken := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !isToken {
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			return r.TLS.PeerCertificates[0].NotAfter
		}
		return time.Time{}
	}
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	text, err := base64.RawURLEncoding.DecodeString(parts[1])
	var claims struct {
		Expiry float64 `json:"exp"`
	}
	if err != nil || json.Unmarshal(text, &claims) != nil || claims.Expiry <= 0 {
		return time.Time{}
	}
	return time.Unix(int64(claims.Expiry), 0)
}
