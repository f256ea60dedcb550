package clients

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"crossway.dev/crossway/internal/lab/install"
	"crossway.dev/crossway/internal/testkit"
)

// backend is a server on loopback.
type backend struct {
	name        string
	appProtocol string
	address     netip.AddrPort
	keepAlive   time.Duration // after which it closes a connection without requests
	line        int           // of the longest path that it takes
	files       string        // nginx's directory: it has no application
}

func (b backend) app() bool { return b.files == "" }

// httpBackends starts the HTTP servers, each with its own defaults.
func httpBackends(t *testing.T, tools install.Clients) []backend {
	t.Helper()
	dir := t.TempDir()
	python := append(os.Environ(), "PYTHONPATH="+tools.PythonPath+":"+testdata(t, "python"), "PYTHONDONTWRITEBYTECODE=1")
	node := append(os.Environ(), "NODE_PATH="+tools.NodePath)
	served := func(b backend, env []string, command ...string) backend {
		if !b.address.IsValid() {
			b.address = loopback(freePort(t))
		}
		for n := range command {
			command[n] = strings.ReplaceAll(command[n], "PORT", strconv.Itoa(int(b.address.Port())))
		}
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Env = env
		start(t, b.name, cmd)
		awaitPort(t, b.address.Port())
		return b
	}
	nginx := backend{name: "nginx", address: loopback(freePort(t)), keepAlive: 5 * time.Second, line: 7500, files: filepath.Join(dir, "files")}
	config := nginxConfig(t, dir, "backend.conf", "@PORT@", strconv.Itoa(int(nginx.address.Port())))
	return []backend{
		served(backend{name: "node", keepAlive: 5 * time.Second, line: 7500}, node, tools.Node, testdata(t, "node/server.js"), "PORT"),
		served(backend{name: "uvicorn", keepAlive: 5 * time.Second, line: 7500}, python,
			"python3", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning", "app:asgi"),
		served(backend{name: "gunicorn", keepAlive: 2 * time.Second, line: 4000}, python,
			"python3", "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--threads", "256", "--log-level", "warning", "--no-control-socket", "app:wsgi"),
		served(nginx, os.Environ(), tools.Nginx, "-e", "stderr", "-p", dir, "-c", config),
		served(backend{name: "node-h2c", appProtocol: "kubernetes.io/h2c", line: 7500}, node, tools.Node, testdata(t, "node/server.js"), "PORT", "h2"),
	}
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
}

func testdata(t *testing.T, name string) string {
	path, err := filepath.Abs(filepath.Join("testdata", name))
	testkit.Must(t, err)
	return path
}

// nginxConfig writes a configuration and the files that it serves.
func nginxConfig(t *testing.T, dir, name string, replace ...string) string {
	t.Helper()
	for _, size := range sizes {
		file := filepath.Join(dir, "files/bytes", strconv.Itoa(size))
		testkit.Must(t, os.MkdirAll(filepath.Dir(file), 0o755))
		testkit.Must(t, os.WriteFile(file, pattern(size), 0o644))
	}
	text, err := os.ReadFile(testdata(t, "nginx/"+name))
	testkit.Must(t, err)
	config := filepath.Join(dir, name)
	replaced := strings.NewReplacer(append(replace, "@DIR@", dir)...).Replace(string(text))
	testkit.Must(t, os.WriteFile(config, []byte(replaced), 0o600))
	return config
}

// pattern is the body of every size, by which a lost or doubled piece is seen.
func pattern(size int) []byte {
	var period [251]byte
	for i := range period {
		period[i] = byte(i)
	}
	return bytes.Repeat(period[:], size/len(period)+1)[:size]
}

// certificate is one for localhost, signed by itself.
func certificate(t *testing.T, e *edge, dir string) corev1.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	testkit.Must(t, err)
	encoded, err := x509.MarshalPKCS8PrivateKey(key)
	testkit.Must(t, err)
	public := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	e.ca = filepath.Join(dir, "ca.pem")
	testkit.Must(t, os.WriteFile(e.ca, public, 0o600))
	return corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "battery"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		"tls.crt": public, "tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})}}
}

// ownGroup makes a server the first process of a group, so that its workers end with it.
var ownGroup = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}

func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
