package clients

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
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
	node := []string{"NODE_PATH=" + tools.NodePath}
	python := pythonEnv(t, tools)
	nginx := backend{name: "nginx", address: loopback(freePort(t)), keepAlive: 5 * time.Second, line: 7500, files: filepath.Join(dir, "files")}
	config := nginxConfig(t, dir, "backend.conf", "@PORT@", strconv.Itoa(int(nginx.address.Port())))
	return []backend{
		serve(t, backend{name: "node", keepAlive: 5 * time.Second, line: 7500}, node, tools.Node, testdata(t, "node/server.js"), "PORT"),
		serve(t, backend{name: "uvicorn", keepAlive: 5 * time.Second, line: 7500}, python,
			"python3", "-m", "uvicorn", "--host", "127.0.0.1", "--port", "PORT", "--log-level", "warning", "app:asgi"),
		serve(t, backend{name: "gunicorn", keepAlive: 2 * time.Second, line: 4000}, python,
			"python3", "-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--threads", "256", "--log-level", "warning", "--no-control-socket", "app:wsgi"),
		serve(t, nginx, nil, tools.Nginx, "-e", "stderr", "-p", dir, "-c", config),
		serve(t, backend{name: "node-h2c", appProtocol: "kubernetes.io/h2c", line: 7500}, node, tools.Node, testdata(t, "node/server.js"), "PORT", "h2"),
	}
}

func pythonEnv(t *testing.T, tools install.Clients) []string {
	return []string{"PYTHONPATH=" + tools.PythonPath + ":" + testdata(t, "python"), "PYTHONDONTWRITEBYTECODE=1"}
}

// serve runs a server until the test ends, at its address or on a free port, which stands where the command says PORT.
func serve(t *testing.T, b backend, env []string, command ...string) backend {
	t.Helper()
	if !b.address.IsValid() {
		b.address = loopback(freePort(t))
	}
	for n := range command {
		command[n] = strings.ReplaceAll(command[n], "PORT", strconv.Itoa(int(b.address.Port())))
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	start(t, b.name, cmd)
	awaitPort(t, b.address.Port())
	return b
}

var compiled = struct {
	once sync.Once
	dir  string
	err  error
}{}

// javaCommand is how a class of testdata/java is run.
func javaCommand(t *testing.T, tools install.Clients, args ...string) []string {
	t.Helper()
	compiled.once.Do(func() {
		sources, err := filepath.Glob(testdata(t, "java/*.java"))
		testkit.Must(t, err)
		compiled.dir, err = os.MkdirTemp("", "battery-java-")
		testkit.Must(t, err)
		out, err := exec.Command("javac", append([]string{"-encoding", "UTF-8", "-nowarn", "-proc:none", "-d", compiled.dir, "-cp", tools.ClassPath}, sources...)...).CombinedOutput()
		if err != nil {
			compiled.err = fmt.Errorf("javac: %w\n%s", err, out)
		}
	})
	testkit.Must(t, compiled.err)
	return append([]string{"java", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", compiled.dir + ":" + tools.ClassPath}, args...)
}

// TestMain removes the compiled classes.
func TestMain(m *testing.M) {
	code := m.Run()
	_ = os.RemoveAll(compiled.dir)
	os.Exit(code)
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
