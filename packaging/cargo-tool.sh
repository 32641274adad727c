#!/bin/bash
# cargo-tool.sh CRATE SUBCOMMAND...: runs a subcommand of cargo, which is installed into a folder of its own at the first use.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$root"

crate=${1:?crate}; shift
bin=$cache/tools/bin
if ! command -v "$crate" > /dev/null && [ ! -x "$bin/$crate" ]; then
	[ -z "${RTC_JSON_NO_INSTALL:-}" ] || die "$crate is missing"
	say "installing $crate (some minutes)"
	# outside of this folder, whose Cargo.lock is not that of the tool
	(cd / && cargo install --locked --quiet --root "$cache/tools" "$crate") >&2
fi
PATH=$PATH:$bin exec cargo "$@"
