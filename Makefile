# Two commands do everything on a fresh Linux machine with Go: make demo, make test.
# Both install what they need, once, into ${CROSSWAY_CACHE:-~/.cache/crossway}.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export GOFLAGS := -buildvcs=false
CACHE := $(or $(CROSSWAY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/crossway)
TOOLS := $(CACHE)/tools

.PHONY: help demo test unit e2e lint lab bench generate build images clean

help: ## say what can be made
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: install ## run the fleet and tell its story with measured figures (out/demo.json)
	@mkdir -p out bin
	@echo "building the demo (the first time about 90 s on 2 cores) ..."
	@go build -o bin/ ./internal/demo/cmd/demo
	bin/demo --out out/demo.json

test: install lint unit e2e ## everything: lint, unit and property tests, charts, the lab end to end
	@echo "all tests passed"

unit: ## pure packages, shells against real API servers, charts, with the race detector
	@echo "go test -race, all but e2e (compiling takes some minutes the first time) ..."
	@programs=$$(go run ./internal/lab/install/cmd/lab-install); eval "$$programs"; \
	export KUBEBUILDER_ASSETS ENVOY HELM; \
	go test -race -timeout 20m $$(go list ./... | grep -v /test/e2e)

e2e: install ## every claim of the demo, in the lab, with race-built binaries
	go test -count=1 -timeout 30m -v ./test/e2e

lint: $(TOOLS)/golangci-lint ## gofmt, go vet, golangci-lint, shellcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these files:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(TOOLS)/golangci-lint run ./...
	@command -v shellcheck >/dev/null || hack/install-debian.sh shellcheck
	shellcheck hack/*.sh .ci/run

lab: install ## leave the fleet running and print how to look at it (Ctrl-C ends it)
	@mkdir -p bin
	@echo "building the lab (the first time about 90 s on 2 cores) ..."
	@go build -o bin/ ./internal/lab/cmd/lab
	bin/lab

bench: install ## measure latencies and sizes (out/bench.json, a table)
	@mkdir -p out bin
	go build -o bin/ ./test/bench/cmd/bench
	bin/bench --out out/bench.json

build: ## the three programs, into bin/
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/hub ./cmd/member-agent ./cmd/crossway

generate: ## deep copies and CRDs from api/
	hack/generate.sh

images: ## container images by ko; KO_DOCKER_REPO says where to
	@mkdir -p $(TOOLS)
	go -C hack/ko build -o $(TOOLS)/ko github.com/google/ko
	$(TOOLS)/ko build --base-import-paths ./cmd/hub ./cmd/member-agent ./cmd/crossway

.PHONY: install
install: # what demo, test, lab and bench need
	@echo "looking for what is needed ..."
	@go run ./internal/lab/install/cmd/lab-install >/dev/null

$(TOOLS)/golangci-lint: hack/lint/go.mod
	@mkdir -p $(TOOLS)
	@echo "building golangci-lint (about 3 min on 2 cores, once) ..."
	go -C hack/lint build -o $@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint
	@touch $@

clean: ## remove what make made here (not the cache)
	rm -rf bin out
