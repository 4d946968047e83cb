# Two commands matter: `make demo` and `make test`. Both install and start what is missing.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO_DENY_VERSION := 0.20.2

.PHONY: help build services demo test test-all faults soak check bench bench-db deny clean database-docs

help: ## show the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

services: ## install and start Kafka, TimescaleDB, Redis
	@scripts/services up kafka postgres redis

build: services ## build everything, optimised
	cargo build --release --locked --workspace
	@scripts/services up

demo: build ## play exchange traffic through the whole pipeline and show the result (ARGS=--json)
	@eval "$$(scripts/services env)" && target/release/tapeline demo $(ARGS)

test: build ## every test but long runs, against real services
	@scripts/services up pgbouncer
	eval "$$(scripts/services env)" && cargo test --release --locked --workspace
	$(MAKE) --no-print-directory faults QUICK=1

faults: build ## make everything go wrong and prove that nothing is lost or doubled (QUICK=1, SEED=N, CASE=NAME, OLD=BINARY)
	eval "$$(scripts/services env)" && target/release/tapeline-loadtest faults \
	    $(if $(QUICK),--quick) $(if $(SEED),--seed $(SEED)) $(if $(CASE),--case $(CASE)) $(if $(OLD),--old $(OLD))

soak: build ## play recordings with faults through the whole pipeline and watch memory (MINUTES=60)
	eval "$$(scripts/services env)" && target/release/tapeline-loadtest soak --minutes $(or $(MINUTES),60) $(ARGS)

test-all: test ## also long runs
	$(MAKE) --no-print-directory soak MINUTES=$(or $(MINUTES),5)
	eval "$$(scripts/services env)" && TAPELINE_TWIN_LAPS=4 cargo test --release --locked --workspace -- --ignored

bench: build ## measure it all: about 20 minutes, QUICK=1 under 3; ARGS="--only store tape"
	@eval "$$(scripts/services env)" && target/release/tapeline-loadtest bench $(if $(QUICK),--quick) $(ARGS)

bench-db: build ## measure the database and its archive on 100 million trades: about 20 minutes, 35 GB (QUICK=1, ROWS=N)
	@eval "$$(scripts/services env)" && target/release/tapeline-loadtest bench-db $(if $(QUICK),--quick) $(if $(ROWS),--rows $(ROWS)) $(ARGS)

check: ## formatting, lints, documentation, licences, shell and SQL
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --document-private-items
	$(MAKE) --no-print-directory deny
	scripts/lint

deny:
	@command -v cargo-deny >/dev/null || cargo install --locked --quiet cargo-deny --version $(CARGO_DENY_VERSION)
	cargo fetch --locked
	cargo deny --offline check bans licenses sources

database-docs: ## write sql/catalog.tsv and docs/database.md anew, after a migration
	eval "$$(scripts/services env)" && TAPELINE_BLESS=1 cargo test --release --locked -p tapeline --test it what_the_migrations_make_s7

clean: ## stop the services and remove what was built
	-scripts/services purge
	cargo clean
