# Everyday commands of Cellgate. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help setup setup-test build demo test lints soak measure bench bench-build pgo clean

CARGO ?= cargo
EDGE  := target/release/cellgate

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Install what the build needs and this machine lacks (by apt)
	@bash scripts/setup.sh

setup-test: ## The same, and etcd for the tests
	@bash scripts/setup.sh --test

build: setup ## Build the optimized binary, target/release/cellgate
	$(CARGO) build --release --locked

demo: build ## Run four cells and an edge on this machine; Ctrl-C ends all of it
	@exec $(EDGE) demo

# Most tests wait for other processes more than they compute.
TEST_THREADS ?= $(shell expr 2 '*' "$$(getconf _NPROCESSORS_ONLN)")

test: setup-test lints ## Formatting, clippy with warnings as errors, all tests, doc tests (TEST_THREADS=)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	    set -x; $(CARGO) nextest run --locked --workspace --test-threads $(TEST_THREADS); \
	else \
	    set -x; $(CARGO) test --locked --workspace --lib --bins --tests; \
	fi
	$(CARGO) test --locked --workspace --doc
	$(CARGO) fmt --check --manifest-path bench/Cargo.toml

lints:
	@for tool in fmt clippy; do \
	    $(CARGO) $$tool --version >/dev/null 2>&1 || { \
	        echo "setup: cargo $$tool is missing; \`rustup component add rustfmt clippy\` brings it" >&2; exit 1; }; \
	done

soak: setup-test ## The long forms of the load tests: 60 s and 600 reloads; 1,000 while cells flap; 1,000 changes in etcd
	CELLGATE_SOAK=full $(CARGO) test --locked --release --test it -- --nocapture --test-threads=1 \
	    soak:: streaming:: flapping:: under_fire:: control_etcd::

measure: setup ## Cost of resilience, isolation of cells, time until thousands of edges have a change; on a quiet machine
	CELLGATE_MEASURE=full $(CARGO) test --locked --release --test it -- --nocapture --test-threads=1 cost:: isolation:: control_edges::

bench-build: setup
	@bash scripts/setup-bench.sh
	$(CARGO) test --locked --manifest-path bench/Cargo.toml --target-dir target
	$(CARGO) build --release --locked --manifest-path bench/Cargo.toml --target-dir target --features bare

# BENCH=quick: a few minutes instead of most of an hour, and nothing is written into docs/.
# ARGS: `target/release/cellgate-bench run --help` says what there is.
BENCH ?= full
ARGS  ?=
RESULTS := target/bench/results.jsonl
comma := ,
# The profiled build is measured as well when there is one.
PGO := $(if $(wildcard target/pgo/cellgate),cellgate-pgo)
PEERS := cellgate,$(PGO:%=%$(comma))pingora,nginx,haproxy,envoy,envoy-matcher

bench: build bench-build ## Cellgate beside nginx, HAProxy, Envoy and a bare Pingora (BENCH=quick, ARGS=)
ifeq ($(BENCH),quick)
	@rm -f target/bench/quick.jsonl
	target/release/cellgate-bench run --quick --peers $(PEERS) --out target/bench/quick.jsonl $(ARGS)
	target/release/cellgate-bench report --ours $(or $(PGO),cellgate) target/bench/quick.jsonl
else
	@rm -f $(RESULTS)
	target/release/cellgate-bench run --peers $(PEERS) --out $(RESULTS) $(ARGS)
	target/release/cellgate-bench report --ours $(or $(PGO),cellgate) --docs docs/benchmarks.md --plots docs/benchmarks $(RESULTS)
endif

pgo: setup bench-build ## target/pgo/cellgate: the release binary, built by the profile of a load
	@CARGO="$(CARGO)" bash scripts/pgo.sh

clean: ## Remove everything that was built
	$(CARGO) clean
