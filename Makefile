# What there is to do with this repository. `make help` lists it; CONTRIBUTING.md says when.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# What is fetched or built once and shared by all clones: Kafka's jars, cargo-deny, grpcurl, Python packages, and in CI every compiled crate.
export WEIR_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/weir
ifeq ($(CI),true)
export CARGO_TARGET_DIR ?= $(WEIR_CACHE)/target
endif

# Arguments for the program: `make up ARGS="--port-offset 100"`, `make bench ARGS="consume"`.
ARGS ?=

.PHONY: help
help: ## List the targets
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 20

.PHONY: up
up: ## Build and run everything in one process on the embedded log
	@scripts/setup build
	cargo run --release --bin weir -- up $(ARGS)

.PHONY: test
test: ## Run every test; the last line has their number
	@scripts/setup build kafka python grpcurl
	@scripts/test $(ARGS)

# The long forms of tests. The whole workspace is named so that its crates have the features that they have in all builds.
VERIFY = cargo build --release --workspace --bin weir && cargo test --release --workspace

.PHONY: verify-roundtrip
verify-roundtrip: ## Export and import 200 random projects in every format and compare all answers (about 20 minutes)
	@scripts/setup build
	export WEIR_ROUNDTRIP_PROJECTS=$(or $(PROJECTS),200); $(VERIFY) --test system -- --nocapture round_trip

# Power cuts of `make verify-crash` at least, and the workload to begin with: with the last one that a run printed, it goes on there.
CUTS ?= 20000
SEED ?= 0

.PHONY: verify-crash
verify-crash: ## Cut the power 20,000 times over log and store, and leave out each sync in turn (about 5 minutes): CUTS=n, and SEED=n to go on at workload n
	@scripts/setup build
	export WEIR_CRASH_CUTS=$(CUTS) WEIR_CRASH_SEED=$(SEED); $(VERIFY) --test crash -- --nocapture whenever missing_sync

.PHONY: verify-bounds
verify-bounds: ## Measure what compacting 40,000 events of 50 KB and 200 slow readers of them make Weir hold: some minutes
	@scripts/setup build
	export WEIR_VERIFY_BOUNDS=1; $(VERIFY) --test system bounds:: -- --nocapture

.PHONY: verify-hostile
verify-hostile: ## Attack Weir with generated requests: 1,000,000 to a producer, 100,000 to all of it (about 3 hours): SEED=n, FROM=n to go on there
	@scripts/setup build
	export WEIR_TEST_SEED=$(or $(filter-out 0,$(SEED)),1) WEIR_HOSTILE_FROM=$(or $(FROM),0) WEIR_HOSTILE_CASES=$(or $(CASES),100000) \
		WEIR_HOSTILE_DECODER_CASES=$(or $(DECODER_CASES),1000000) WEIR_HOSTILE_LATENCY=1; \
	$(VERIFY) --test hostile -- --nocapture --test-threads 1

# Statements of `make verify-sql`, and the first of them: with the last one that a run printed, it goes on there.
STATEMENTS ?= 10000

.PHONY: verify-sql
verify-sql: ## Run 10,000 generated statements of SQL, hostile ones among them (about 15 minutes): SEED=n, FROM=n to go on there
	@scripts/setup build
	export WEIR_TEST_SEED=$(or $(filter-out 0,$(SEED)),1) WEIR_HOSTILE_FROM=$(or $(FROM),0) WEIR_HOSTILE_STATEMENTS=$(STATEMENTS); \
	$(VERIFY) --test sql_hostile -- --nocapture

.PHONY: setup
setup: ## Install what building, testing and linting need and is missing
	@scripts/setup build kafka python grpcurl lint

.PHONY: dev
dev: ## Run the services as processes of their own on a local Kafka, logging to .weir/dev; Ctrl-C stops them
	@scripts/setup build kafka
	@scripts/dev

.PHONY: logs
logs: ## Follow the logs of `make dev`
	@tail -F -n 20 .weir/dev/*.log

.PHONY: bench
bench: ## Measure: ARGS is latency, consume or ingest
	@scripts/setup build
	cargo run --release --bin weir -- bench $(ARGS)

.PHONY: bench-store
bench-store: ## Measure questions about events beside DuckDB and ClickHouse; ARGS=--growth: how times grow
	@scripts/setup build
	@scripts/bench-store $(ARGS)

.PHONY: generate
generate: ## Write the code generated from proto/ anew
	WEIR_REGENERATE=1 cargo test --release --package weir-proto --test generated

.PHONY: lint
lint: lint-format lint-clippy lint-docs lint-dependencies lint-schemas ## Check form, lints, documentation, licences and schemas

.PHONY: lint-format
lint-format:
	cargo fmt --all --check

.PHONY: lint-clippy
lint-clippy:
	cargo clippy --release --workspace --all-targets --quiet -- -D warnings

.PHONY: lint-docs
lint-docs:
	RUSTDOCFLAGS="-D warnings -A rustdoc::private-intra-doc-links" cargo doc --release --workspace --no-deps --document-private-items --quiet

.PHONY: lint-dependencies
lint-dependencies:
	@scripts/lint-dependencies

.PHONY: lint-schemas
lint-schemas:
	@scripts/lint-schemas
