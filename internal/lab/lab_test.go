package lab_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"crossway.dev/crossway/internal/lab"
)

// fleet is the one lab that the tests of this package share.
var fleet *lab.Lab

func TestMain(m *testing.M) {
	lab.Enter(lab.Entry{})
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	var err error
	if fleet, err = lab.Start(ctx, lab.Config{LogDir: os.Getenv("LAB_LOG_DIR")}, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	fleet.Close()
	os.Exit(code)
}

const web = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: default}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: debian
        command: [python3, -c, "import http.server,os; print('hello from', os.environ['POD'], flush=True); http.server.HTTPServer(('',8080), http.server.SimpleHTTPRequestHandler).serve_forever()"]
        env:
        - {name: POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports: [{containerPort: 8080}]
`

func TestDeployment(t *testing.T) {
	begin := time.Now()
	c := fleet.Members["us-west"]
	if err := c.Apply(t.Context(), []byte(web)); err != nil {
		t.Fatal(err)
	}
	t.Log("applied", time.Since(begin))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := c.AwaitPods(ctx, "default", "app=web", 2); err != nil {
		t.Fatal(err)
	}
	t.Log("ready", time.Since(begin))
}
