# Holdfast. `make help` says what there is.

FUZZTIME ?= 60s
# Without git, or in a checkout that git does not trust, there is no revision
# to stamp into the programs; that is no reason not to build them.
BUILDVCS := $(shell git rev-parse HEAD >/dev/null 2>&1 && echo true || echo false)

export PATH := $(CURDIR)/.cache/bin:$(PATH)

.DEFAULT_GOAL := help

.PHONY: build
build: ## build bin/holdfast and bin/holdfast-lab, static and reproducible
	CGO_ENABLED=0 go build -trimpath -buildvcs=$(BUILDVCS) -ldflags '-s -w' -o bin/ ./cmd/...

.PHONY: setup
setup: ## install what Debian lacks and the pinned tools; starts no service
	scripts/setup

.PHONY: demo
demo: ## from nothing to a jammed relay, explained (root; leaves nothing behind)
	scripts/setup packages
	$(MAKE) --no-print-directory build
	scripts/demo

.PHONY: test
test: ## everything that must hold: setup, build, lint, unit tests, lab (root)
	@scripts/test

.PHONY: unit
unit: ## unit tests alone, with the race detector
	@scripts/test unit

.PHONY: lab
lab: ## tests on a real Postfix alone (root)
	@scripts/test build lab

.PHONY: diagnose
diagnose: build ## plant every trouble in real relays, and compare what triage names (root)
	go run ./test/diagnose

.PHONY: crash
crash: ## kill every changing verb at every system call, and count the mail (root)
	HOLDFAST_CRASH=all go test -count=1 -timeout 60m -v ./test/crash

.PHONY: mutants
mutants: ## plant mistakes that lose mail in a copy of the tree; the tests must notice each (root)
	go run ./test/mutants

.PHONY: sim
sim: ## replay against 5,000 generated providers in virtual time, and say how near it came to the best
	go test -count=1 -timeout 30m -v -run TestProviders ./replay -args -providers 5000 -list 20

.PHONY: lint
lint: ## golangci-lint and shellcheck
	scripts/setup
	scripts/lint

.PHONY: fmt
fmt: ## format the Go code as lint wants it
	scripts/setup tools
	golangci-lint fmt ./...

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME each (60s)
	FUZZTIME=$(FUZZTIME) scripts/fuzz

.PHONY: bench
bench: build ## measure against Postfix's own tools on 100,000 messages (root)
	scripts/bench

.PHONY: bench-million
bench-million: build ## the same on a million messages (root)
	scripts/bench 1000000

.PHONY: generate
generate: ## write generated files anew
	go generate ./...

.PHONY: clean
clean: ## remove the built programs
	rm -rf bin

.PHONY: distclean
distclean: clean ## remove the cached tools as well
	rm -rf .cache

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
