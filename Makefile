# Taffrail. `make demo` and `make test` do everything on a fresh Debian-like machine, set-up included.
# Build products live outside of the clone, so that every clone on a machine shares them: RocksDB is compiled once.

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/taffrail
export TAFFRAIL_CACHE := $(CACHE)
export CARGO_TARGET_DIR ?= $(CACHE)/target
export CCACHE_DIR ?= $(CACHE)/ccache
export CC := ccache gcc
# It compiles RocksDB in three quarters of the time that g++ takes.
export CXX := ccache clang++
export PATH := $(CACHE)/tools/bin:$(PATH)

CARGO := cargo
BIN := $(CARGO_TARGET_DIR)/release

.DEFAULT_GOAL := help
.PHONY: help setup build demo demo-kubernetes test lint unit sim e2e processes faults examples bench images cluster cluster-down kube-shell fmt crds env clean

help: ## Lists what make can do
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

setup: ## Installs what the build needs and this machine lacks
	@.ci/setup

build: setup ## Builds the broker and the command line
	$(CARGO) build --release --locked -p taffrail-broker -p taffrail-operator -p taffrail-client -p taffrail-e2e --bins
	@echo "built: $(BIN)/taffrail-broker $(BIN)/taffrail"

images: build ## Makes container images of the programs, without an engine or a registry
	@.ci/setup kubernetes
	@.ci/images $(BIN)
	@ls -1 $(BIN)/images/*.tar

cluster: images ## Starts a Kubernetes of NODES (3) nodes on this machine, in a sandbox, with the images in it
	@e2e/cluster/up
	@e2e/cluster/import $(BIN)/images/*.tar

cluster-down: ## Ends it; nothing of it is left
	@e2e/cluster/down

kube-shell: ## Opens a shell in it: kubectl, helm and the programs on PATH, pods and names in reach
	@PATH="$(BIN):$$PATH" e2e/cluster/enter "$${SHELL:-bash}"

demo: build ## Streams 20,000 real flights through a broker and a group that are killed on the way, and proves that none was lost
	@$(BIN)/taffrail-demo

demo-kubernetes: build ## The same on a Kubernetes of three nodes: chart, three brokers, pods that produce and consume, a leader's pod killed, a leader's node without power
	@.ci/setup kubernetes
	@.ci/kubernetes >/dev/null
	@$(BIN)/taffrail-demo-kubernetes

# Kubernetes is built beside the compiler, which often has work for one processor only.
test: setup ## Runs all tests but most of the fault table, of which it tries a few rows, among them a failover
	@.ci/setup e2e
	@.ci/meanwhile .ci/kubernetes $(MAKE) lint unit
	@$(MAKE) processes
	@echo "all tests passed"

lint: setup ## Formatting, clippy with warnings denied, licences and sources of dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@.ci/deny

unit: setup ## Tests of the crates
	$(CARGO) test --release --locked --no-fail-fast --workspace --exclude taffrail-e2e

sim: setup ## Simulates consumer groups and replication on SIM_SCHEDULES (100,000) seeds each, whole brokers on WIRING_SCHEDULES (300); writes broker/tests/*/RUNS.md
	SIM_SCHEDULES=$(or $(SIM_SCHEDULES),100000) $(CARGO) test --release --locked --workspace --exclude taffrail-e2e --test sim --test replication_sim many_schedules
	SIM_SCHEDULES=$(or $(WIRING_SCHEDULES),300) $(CARGO) test --release --locked --workspace --exclude taffrail-e2e --test wiring many_schedules

e2e: processes faults ## Tests of whole processes, and the fault table

processes: build ## Tests of whole processes: kills, full disks, hostile clients, other languages, Kubernetes
	@.ci/setup e2e
	@.ci/kubernetes >/dev/null
	@.ci/images $(BIN)
	$(CARGO) build --release --locked --workspace --example hello --example group
	$(E2E) --no-run
	@.ci/lots "$(E2E)" "--lib --bins $(call tests,$(filter-out $(KUBERNETES) $(ALONE),$(E2E_TESTS)))" "$(call tests,$(KUBERNETES))"
	$(E2E) $(call tests,$(ALONE))
	$(E2E) --doc

E2E := $(CARGO) test --release --locked --no-fail-fast -p taffrail-e2e
E2E_TESTS := $(sort $(basename $(notdir $(wildcard e2e/tests/*.rs))) $(notdir $(patsubst %/main.rs,%,$(wildcard e2e/tests/*/main.rs))))
tests = $(addprefix --test ,$(1))
# Together they take about as long as all others.
KUBERNETES := days lab smoke operator metadata
# It compares times.
ALONE := hostile

# They wait more than they work: more of them at a time than there are processors.
faults: build ## What happens when things break; writes e2e/faults/ (one row: make faults ARGS=f8_)
	@.ci/setup e2e
	@.ci/kubernetes >/dev/null
	@.ci/images $(BIN)
	TAFFRAIL_FAULTS=all TAFFRAIL_FAULTS_TABLE=e2e/faults \
	$(E2E) --test faults --test days -- --test-threads 4 $(ARGS)

bench: build ## Measures everything against the machine's limits; writes e2e/bench/ (parts: make bench ARGS="--only cold")
	@.ci/setup bench
	$(BIN)/taffrail-bench $(ARGS)

fmt: ## Formats the code
	$(CARGO) fmt --all

crds: setup ## Writes anew what is made from the types: crds/yaml, its copy in the chart, docs/crds.md
	$(CARGO) run --quiet --release --locked -p taffrail-crds --bin crdgen

env: ## Prints the environment for cargo and the built programs by hand: eval "$$(make -s env)"
	@echo 'export CARGO_TARGET_DIR="$(CARGO_TARGET_DIR)" CCACHE_DIR="$(CCACHE_DIR)" CC="$(CC)" CXX="$(CXX)" PATH="$(BIN):$(CACHE)/tools/bin:$$PATH"'

clean: ## Removes everything that was built
	rm -rf "$(CACHE)"
