package gossip

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"crossway.dev/crossway/pkg/membership"
)

// Application protocols (ALPN) of the port.
const (
	protocolGossip = "crossway-gossip"
	protocolBeat   = "crossway-beat"
)

// purpose is what a connection is for. It is the first byte of the hello.
type purpose byte

const (
	forPackets purpose = 'p' // packets of memberlist, in both directions
	forStream  purpose = 's' // one exchange of memberlist's push/pull
	forTry     purpose = 't' // nothing: to be there is all
	forBeats   purpose = 'b'
)

func (p purpose) protocol() string {
	if p == forBeats {
		return protocolBeat
	}
	return protocolGossip
}

// handshakeTime is how long a connection may take until both know each other.
const handshakeTime = 5 * time.Second

// tlsConfig is mutual TLS 1.3 in which names of hosts mean nothing: a certificate's URI
// SAN is its owner. There are no session tickets: who resumes a session shows no
// certificate, and might have lost it.
func tlsConfig(source TLS, protocols []string, usage x509.ExtKeyUsage) (*tls.Config, error) {
	certificate, err := source.Certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{*certificate},
		ClientAuth:   tls.RequireAnyClientCert,
		// The chain is verified below, without a host name, which VerifyConnection has
		// instead of the default.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if state.NegotiatedProtocol == "" || len(state.PeerCertificates) == 0 {
				return errors.New("a node's connection has a certificate and an application protocol")
			}
			options := x509.VerifyOptions{Roots: source.Roots(), Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{usage}}
			for _, c := range state.PeerCertificates[1:] {
				options.Intermediates.AddCert(c)
			}
			_, err := state.PeerCertificates[0].Verify(options)
			return err
		},
	}, nil
}

// hello is what both sides of a connection say first: for what it is, of which fleet,
// and under which name.
type hello struct {
	purpose purpose
	fleet   string
	name    membership.Name
}

func (h hello) write(w io.Writer) error {
	b := []byte{byte(h.purpose), byte(len(h.fleet))}
	b = append(b, h.fleet...)
	b = append(b, byte(len(h.name)))
	_, err := w.Write(append(b, h.name...))
	return err
}

func readHello(r io.Reader) (h hello, err error) {
	var one [1]byte
	if _, err := io.ReadFull(r, one[:]); err != nil {
		return h, err
	}
	h.purpose = purpose(one[0])
	var texts [2]string
	for i := range texts {
		if _, err := io.ReadFull(r, one[:]); err != nil {
			return h, err
		}
		text := make([]byte, one[0])
		if _, err := io.ReadFull(r, text); err != nil {
			return h, err
		}
		texts[i] = string(text)
	}
	h.fleet, h.name = texts[0], membership.Name(texts[1])
	return h, nil
}

// check returns why the other side's hello does not fit what its certificate says.
func (h hello) check(own hello, state tls.ConnectionState) error {
	if h.fleet != own.fleet {
		return fmt.Errorf("%s is of fleet %q, this is %q", h.name, h.fleet, own.fleet)
	}
	if state.NegotiatedProtocol != h.purpose.protocol() {
		return fmt.Errorf("a connection for %q is not in protocol %s", h.purpose, state.NegotiatedProtocol)
	}
	name, err := membership.NameOf(state.PeerCertificates[0])
	if err == nil && name != h.name {
		err = fmt.Errorf("the certificate of %s does not speak for %.80q", name, h.name)
	}
	return err
}

// identify makes a TLS connection of a raw one and finds out who the other side is.
// wanted is the purpose of who dials, 0 for the one who is dialled.
func identify(ctx context.Context, config Config, raw net.Conn, wanted purpose, allow func(hello, *x509.Certificate) error) (*tls.Conn, hello, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	deadline, _ := ctx.Deadline()
	if err := raw.SetDeadline(deadline); err != nil {
		return nil, hello{}, err
	}
	own := hello{purpose: wanted, fleet: config.Fleet, name: config.Name}
	connection, err := handshake(ctx, config.TLS, raw, wanted)
	if err != nil {
		return nil, hello{}, err
	}
	if wanted != 0 { // who dials speaks first
		if err := own.write(connection); err != nil {
			return nil, hello{}, err
		}
	}
	other, err := readHello(connection)
	if err != nil {
		return nil, hello{}, err
	}
	if err := other.check(own, connection.ConnectionState()); err != nil {
		return nil, other, err
	}
	if err := allow(other, connection.ConnectionState().PeerCertificates[0]); err != nil {
		return nil, other, err
	}
	if wanted == 0 {
		own.purpose = other.purpose
		if err := own.write(connection); err != nil {
			return nil, other, err
		}
	}
	return connection, other, connection.SetDeadline(time.Time{})
}

func handshake(ctx context.Context, source TLS, raw net.Conn, wanted purpose) (*tls.Conn, error) {
	if wanted == 0 {
		config, err := tlsConfig(source, []string{protocolGossip, protocolBeat}, x509.ExtKeyUsageClientAuth)
		if err != nil {
			return nil, err
		}
		connection := tls.Server(raw, config)
		return connection, connection.HandshakeContext(ctx)
	}
	config, err := tlsConfig(source, []string{wanted.protocol()}, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	connection := tls.Client(raw, config)
	return connection, connection.HandshakeContext(ctx)
}
