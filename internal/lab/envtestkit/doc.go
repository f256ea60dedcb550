// Package envtestkit gives a test binary one real API server, with the CRDs of
// Crossway, of the Gateway API and of the Multi-Cluster Services API, and RBAC
// enforced. There is no controller manager: nothing but the test acts.
//
// It never outlives the test binary, however that ends. Tests of one binary
// share the server, so each makes namespaces of its own.
//
//	func TestMain(m *testing.M) { envtestkit.Main(m) }
//
//	func TestPush(t *testing.T) {
//		cfg := envtestkit.Config(t)
//		...
//	}
package envtestkit
