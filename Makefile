# Two commands do everything on a fresh Linux machine with Go: make demo and make test.
# Both install what they need, once, into ${CROSSWAY_CACHE:-~/.cache/crossway}.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export GOFLAGS := -buildvcs=false
CACHE := $(or $(CROSSWAY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/crossway)
TOOLS := $(CACHE)/tools

# The packages that make unit tests.
PKG ?= ./api/... ./cmd/... ./internal/arch ./pkg/...
# Laws are tested with the same draws each time, so that nothing is red that nobody changed. RAPID_SEED=0 draws others.
export RAPID_SEED ?= 1
# What the programs print for --version, and the tags of the images.
export VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
TAGS ?= latest

.PHONY: help demo test unit race clients e2e conformance conformance-core mcs-conformance chaos lint fmt lab bench generate generate-check build images clean

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: install ## run a fleet on this machine and show what it does, with measured figures (out/demo.json)
	@mkdir -p out bin
	@echo "building the demo (the first time about 90 s on 2 cores) ..."
	@go build -o bin/ ./internal/demo/cmd/demo
	bin/demo --out out/demo.json

test: install lint generate-check race clients e2e conformance-core ## everything: lint, generated files, all tests with the race detector, real clients, end to end, conformance
	@echo "all tests passed"

unit: ## the edit loop: tests that start no API server and no Envoy (PKG=./pkg/gateway for one package)
	go test -short $(PKG)

# One package more than there are processors: most wait for other programs most of the time. What is last runs alone, so
# it should be short.
race: $(TOOLS)/gotestsum ## all tests but the end-to-end ones, with the race detector, real API servers and Envoys
	@echo "go test -race, all but e2e (compiling takes some minutes the first time) ..."
	@programs=$$(go run ./internal/lab/install/cmd/lab-install); eval "$$programs"; \
	export KUBEBUILDER_ASSETS ENVOY HELM; \
	packages=$$(go list ./... | grep -v -e /test/charts -e /test/e2e -e /test/clients); \
	$(TOOLS)/gotestsum --format pkgname --format-hide-empty-pkg -- -race -p $$(($$(nproc) + 1)) -timeout 20m ./test/charts $$packages; \
	go test -race -tags faults -run Fault ./cmd/hub

clients: $(TOOLS)/gotestsum ## real clients (curl, nginx, Python, Node, Java, gRPC) and servers, through one edge with defaults
	$(TOOLS)/gotestsum --format pkgname -- -count=1 -timeout 15m ./test/clients

e2e: install $(TOOLS)/gotestsum ## every claim of the demo, in the lab, with binaries built with the race detector
	$(TOOLS)/gotestsum --format standard-verbose -- -count=1 -timeout 45m ./test/e2e

chaos: install $(TOOLS)/gotestsum ## kill, cut off and freeze parts of a fleet at random, and compare what is seen with a model (CROSSWAY_SEED repeats it)
	CROSSWAY_CHAOS=1 $(TOOLS)/gotestsum --format standard-verbose -- -count=1 -timeout 20m -run TestChaos ./test/e2e

conformance: install ## the official Gateway API suite, profile GATEWAY-HTTP, in the lab (out/conformance.yaml)
	@mkdir -p bin
	@go build -o bin/ ./test/conformance/cmd/conformance
	bin/conformance

conformance-core: install ## the core tests of that suite (out/conformance-core.yaml)
	@mkdir -p bin
	@go build -o bin/ ./test/conformance/cmd/conformance
	bin/conformance --core

mcs-conformance: install ## the official suite of the Multi-Cluster Services API, in the lab, 6 minutes (out/mcs-conformance)
	@mkdir -p bin
	@hack/install-debian.sh socat bind9-dnsutils netcat-openbsd # what the suite's pods run
	@go build -o bin/ ./test/mcs/cmd/mcs-conformance
	bin/mcs-conformance

lint: $(TOOLS)/golangci-lint ## gofmt, golangci-lint (go vet is one of its linters), shellcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "run make fmt:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(TOOLS)/golangci-lint run ./...
	$(TOOLS)/golangci-lint run --build-tags faults ./cmd/hub
	@command -v shellcheck >/dev/null || hack/install-debian.sh shellcheck
	shellcheck hack/*.sh .ci/run

fmt: ## format all Go files
	@gofmt -l -w $$(git ls-files '*.go')

lab: install ## leave a fleet running and print how to look at it (Ctrl-C ends it)
	@mkdir -p bin
	@echo "building the lab (the first time about 90 s on 2 cores) ..."
	@go build -o bin/ ./internal/lab/cmd/lab
	bin/lab

bench: install ## measure latencies and sizes (out/bench.json, and a table); PARTS=scale: that part alone
	@mkdir -p out bin
	@hack/install-debian.sh nghttp2-client nginx-light # what part "request" needs
	go build -o bin/ ./test/bench/cmd/bench
	bin/bench --out out/bench.json $(if $(PARTS),--parts $(PARTS))

build: ## build the three programs into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags "-X crossway.dev/crossway/pkg/program.version=$(VERSION)" -o bin/ \
		./cmd/hub ./cmd/member-agent ./cmd/crossway

generate: ## write deep copies and CRDs anew from api/
	hack/generate.sh

generate-check: ## fail if deep copies or CRDs are not those of api/
	hack/generate.sh --check

images: ## build and push container images with ko, to KO_DOCKER_REPO (TAGS=0.1.0)
	@mkdir -p $(TOOLS)
	go -C hack/ko build -o $(TOOLS)/ko github.com/google/ko
	$(TOOLS)/ko build --base-import-paths --tags $(TAGS) ./cmd/hub ./cmd/member-agent ./cmd/crossway

.PHONY: install
install: # what demo, test, lab and bench need
	@echo "looking for what is needed ..."
	@go run ./internal/lab/install/cmd/lab-install >/dev/null

# It runs go test and says what failed, with its output, once more at the end.
$(TOOLS)/gotestsum: hack/test/go.mod
	@mkdir -p $(TOOLS)
	go -C hack/test build -o $@ gotest.tools/gotestsum
	@touch $@

$(TOOLS)/golangci-lint: hack/lint/go.mod
	@mkdir -p $(TOOLS)
	@echo "building golangci-lint (about 3 min on 2 cores, once) ..."
	go -C hack/lint build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

clean: ## remove what make made here (not the cache)
	rm -rf bin out dist
