# Targets of the project; `make` alone lists them.
SHELL := /bin/sh
GO    ?= go
# A static binary: the sandbox's init is this binary, in any root file system.
TAGS    := osusergo,netgo,sqlite_omit_load_extension
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -linkmode external -extldflags -static -X main.version=$(VERSION)
BUILD   := CGO_ENABLED=1 $(GO) build -trimpath -tags $(TAGS) -ldflags '$(LDFLAGS)'
TIME    ?= 10m

.DEFAULT_GOAL := help
.PHONY: help tools build quickstart claude test testuser race lint bench fuzz mutants generate clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools:
	@command -v $(GO) >/dev/null 2>&1 || { echo "flow needs Go 1.26 or newer on PATH: install it from your distribution or go.dev/dl" >&2; exit 1; }
	@c=$$($(GO) env CC); command -v "$${c%% *}" >/dev/null 2>&1 || { echo "flow needs a C compiler (SQLite is C): install gcc and the C library's headers, e.g. apt-get install gcc libc6-dev" >&2; exit 1; }

build: tools ## build the static binary bin/flow
	@mkdir -p bin
	$(BUILD) -o bin/flow ./cmd/flow

quickstart: build ## build, then run examples/workflows/quickstart.yaml
	./bin/flow run examples/workflows/quickstart.yaml

claude: ## install the Claude Code CLI that tests run, outside of the repository
	@timeout 300 scripts/claude-cli

test: tools ## run all tests
	$(GO) test -tags $(TAGS) -timeout $(TIME) ./...

testuser: tools ## run all tests as nobody, called by root
	GO=$(GO) scripts/test-as-user -tags $(TAGS) -timeout $(TIME) ./...

race: tools ## run all tests under the race detector
	$(GO) test -race -tags $(TAGS) -timeout $(TIME) ./...

lint: tools ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt: the files above are not formatted" >&2; exit 1; }
	$(GO) vet -tags $(TAGS) ./...
	$(GO) tool staticcheck -tags $(TAGS) ./...

bench: build ## benchmarks, then the whole-process comparison with sh and make
	$(GO) test -tags $(TAGS) -run '^$$' -bench . -benchmem ./...
	$(BUILD) -o bin/bench ./cmd/flow/internal/bench
	FLOW=$(CURDIR)/bin/flow ./bin/bench $(ONLY)

fuzz: tools ## each fuzz target for a minute
	$(GO) test -tags $(TAGS) -run '^$$' -fuzz FuzzParse -fuzztime 60s ./workflow
	$(GO) test -tags $(TAGS) -run '^$$' -fuzz FuzzRedactor -fuzztime 60s ./redact
	for f in FuzzClassify FuzzAuthority FuzzNames; do $(GO) test -tags $(TAGS) -run '^$$' -fuzz $$f -fuzztime 60s ./egress || exit 1; done

mutants: tools ## take out each protection of the sandbox and see its test fail; ONLY=part of a name
	FLOW_LONG=1 FLOW_MUTANT='$(ONLY)' $(GO) test -tags $(TAGS) -timeout 60m -count=1 -v -run '^TestMutants$$' ./cmd/flow

generate: tools ## rewrite schema.json, the tables of docs/language.md and the golden files of the language
	$(GO) test -tags $(TAGS) ./workflow -update

clean: ## remove what make built
	rm -rf bin
