# rtc_json: `make demo` to see it, `make test` to check it. Each target can be used alone; `make help` lists them.

SHELL := /bin/bash
.DEFAULT_GOAL := help

TARGET_DIR := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
RUST_LIB := $(abspath $(TARGET_DIR)/release/librtc_json.a)
# where the installed Kamailio keeps its modules
MODULE_DIR ?= $(patsubst %/,%,$(dir $(shell find /usr/lib /usr/lib64 /usr/local/lib /usr/local/lib64 -path '*/kamailio/modules/tm.so' -print -quit 2>/dev/null)))

# the places of what install-deps may just have installed
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*\#\# .*/\1/p' Makefile)

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/\1\t\2/' | expand -t 16

deps: ## install what building, tests and demo need (Debian packages by root or sudo)
	@scripts/install-deps.sh

build: core module client ## all of it: Rust core, Kamailio module, browser client

# no path of the building machine ends in the module: the same source gives the same bytes, wherever it is built
REMAP := --remap-path-prefix=$(CURDIR)=. --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=cargo

core: ## the Rust core: target/release/librtc_json.a
	@scripts/install-deps.sh build
	@echo "==> Rust core"
	RUSTFLAGS="$$RUSTFLAGS $(REMAP)" cargo build --release --locked

header: ## write include/rtc_json.h anew from crates/ffi
	@echo "==> include/rtc_json.h"
	RTC_JSON_HEADER=write cargo build --locked

module: core ## the Kamailio module: kamailio-module/rtc_json.so
	@scripts/install-deps.sh kamailio
	@echo "==> Kamailio module"
	$(MAKE) --no-print-directory -C kamailio-module RUST_LIB="$(RUST_LIB)"

client: ## the browser client: client/dist
	@scripts/install-deps.sh client
	@echo "==> browser client"
	npm --prefix client run --silent build

size: ## bytes of the browser client, minified and gzipped; fails above 3000 gzipped
	@scripts/install-deps.sh client >&2
	@npm --prefix client run --silent build >&2
	@npm --prefix client run --silent size

install: ## put the built module where Kamailio finds it (honours DESTDIR, MODULE_DIR)
	@[ -f kamailio-module/rtc_json.so ] || { echo "nothing built yet: make build" >&2; exit 1; }
	@[ -n "$(MODULE_DIR)" ] || { echo "found no Kamailio modules folder: give MODULE_DIR" >&2; exit 1; }
	@echo "==> $(DESTDIR)$(MODULE_DIR)/rtc_json.so"
	install -D -m 644 kamailio-module/rtc_json.so "$(DESTDIR)$(MODULE_DIR)/rtc_json.so"

deb: module ## a Debian package of the module: dist/*.deb
	@scripts/install-deps.sh client packages
	@echo "==> Debian package"
	@scripts/deb.sh

reproducible: ## build the module twice, in two places, and compare
	@scripts/install-deps.sh build kamailio
	@exec scripts/reproducible.sh

demo: ## Kamailio with two agents and the page, until Ctrl-C
	@exec scripts/demo.sh

demo-asterisk: ## the same with Asterisk 22 as registrar and media server and a stand-in for Genesys
	@exec scripts/demo.sh --asterisk

docs: ## write what is made from other files anew (the module's README, the JSON Schema) and check all of the documentation
	@scripts/install-deps.sh build test
	@echo "==> kamailio-module/README"
	node scripts/module-readme.mjs > kamailio-module/README.new && mv kamailio-module/README.new kamailio-module/README
	@echo "==> docs/schema/rtc-json.schema.json"
	RTC_JSON_SCHEMA=write cargo test --quiet --locked -p rtc-json-protocol --test schema
	@exec tests/run docs

test: ## all tests
	@exec tests/run unit docs sip api e2e packages

test-docs: ## the documentation against the source, and the example configuration with each of its switches
	@exec tests/run docs

test-unit: ## Rust and client tests without any server
	@exec tests/run unit

test-client: ## tests of the browser client alone
	@exec tests/run client

test-sip: ## real Kamailio against SIPp
	@exec tests/run sip

test-nodes: ## several real Kamailios that know each other: takeover, loss of a node, cut networks, rolling restart (some twelve minutes)
	@exec tests/run nodes

test-api: ## real Kamailio and what stands beside the calls: the REST API, metrics, TURN with coturn
	@exec tests/run api

test-e2e: ## real Kamailio, Asterisk, Chromium and Firefox
	@exec tests/run e2e

test-packages: ## the Debian package, installed into a Debian folder of its own and used there (as root)
	@exec tests/run packages

test-versions: ## the same module on Kamailio 6.0 and 6.1 (installs them into folders of their own)
	@exec tests/run versions

torture: ## the torture messages of RFC 4475 as requests and as replies, RFC 6455 frame by frame, and the Autobahn test suite, on a real Kamailio
	@exec tests/run torture

test-memory: ## calls with Kamailio under valgrind
	@exec tests/run memory

miri: ## the tests of the pure crates under Miri (a nightly Rust with the components miri and rust-src)
	@exec scripts/miri.sh

test-faults: ## what is promised when processes die, servers are away, memory and packets are lost, clients are hostile (some ten minutes)
	@scripts/install-deps.sh build kamailio
	@exec tests/run faults

bench: ## benchmarks of the Rust core, and the API on a real Kamailio beside a fixed string
	@echo "==> benchmarks"
	cargo bench --workspace --locked
	@$(MAKE) --no-print-directory module
	@scripts/install-deps.sh test
	@echo "==> the API, beside xhttp with a fixed string"
	node tests/load/rest.mjs

bench-client: ## the client against JsSIP, as shipped and tuned, on the same servers: bytes, frames, heap, times
	@scripts/install-deps.sh build kamailio client test asterisk
	@$(MAKE) --no-print-directory build
	@exec tests/run tests/bench/client.test.mjs

# seconds for each fuzz target
T ?= 60
fuzz: ## each fuzz target for T seconds (60), the last tenth with AddressSanitizer; adds to fuzz/tally.md: `make fuzz T=3600`, `make fuzz TARGET=sdp`
	@scripts/install-deps.sh build client fuzz
	@exec scripts/fuzz.sh $(T) $(TARGET)

bench-nodes: module ## what it costs that nodes know each other: a call at one of three nodes beside one alone, bytes between nodes, a takeover
	@scripts/install-deps.sh test
	cargo build --release --locked -p rtc-json-load
	@exec tests/run tests/bench/nodes.test.mjs

bench-peers: module ## rtc_json against the same Kamailio as SIP-over-WebSocket proxy, and against Janus: ratios
	@scripts/install-deps.sh test bench
	cargo build --release --locked -p rtc-json-load
	@exec node tests/load/peers.mjs

load: module ## 5,000 agents by WSS, 100 calls a second among them (T=60 seconds), then the cost of a call beside 20,000
	@scripts/install-deps.sh test
	cargo build --release --locked -p rtc-json-load
	@exec node tests/load/load.mjs

lint: ## format, clippy, C warnings, TypeScript: all without a warning
	@echo "==> cargo fmt"
	cargo fmt --all --check
	cargo fmt --manifest-path fuzz/Cargo.toml --check
	@echo "==> cargo clippy"
	cargo clippy --workspace --all-targets --locked -- -D warnings
	@echo "==> C warnings"
	@scripts/install-deps.sh build kamailio
	$(MAKE) --no-print-directory -B -C kamailio-module OUT="$(abspath run/lint)" \
		$(patsubst kamailio-module/%.c,$(abspath run/lint)/%.o,$(wildcard kamailio-module/*.c))
	@echo "==> TypeScript"
	@scripts/install-deps.sh client
	npm --prefix client run --silent check

clean: ## remove what was built (not what was installed)
	@echo "==> clean"
	cargo clean
	-$(MAKE) --no-print-directory -C kamailio-module clean
	rm -rf client/dist dist run

include packaging/packages.mk
