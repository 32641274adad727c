#!/bin/bash
# miri.sh [CRATE...]: the tests of the crates that are pure (no system calls, no C) under Miri, which interprets them and sees what no test
# asserts: reads outside of a value, aliasing that is not allowed, arithmetic that overflows. Slow, so of the tests with random input only a
# few rounds run, and the walks of the engine not at all. Needs a nightly Rust with the components miri and rust-src; ends with 3 without.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

toolchain=${RTC_JSON_NIGHTLY:-nightly}
cargo "+$toolchain" miri --version > /dev/null 2>&1 || {
	echo "miri.sh: no Miri: rustup toolchain install $toolchain --component miri,rust-src" >&2
	exit 3
}
crates=("$@")
if [ ${#crates[@]} = 0 ]; then crates=(sdp sip protocol nodes engine); fi
# samples and corpora are files, and the property tests keep seeds
export MIRIFLAGS="${MIRIFLAGS:-} -Zmiri-disable-isolation"
export PROPTEST_CASES=${PROPTEST_CASES:-4}
for crate in "${crates[@]}"; do
	say "$crate under Miri"
	skip=()
	case $crate in
		# (the others: megabytes of text, or thousands of rounds)
		engine) only=(--lib --test anew --test calls --test challenge --test draining --test edges --test identity --test midcall --test next_hop --test register --test takeover --test text) ;;
		# (the others hand our files to a library that reads schemas)
		protocol) only=(--lib --test corpora --test properties --test rules) ;;
		*) only=(--tests) ;;
	esac
	case $crate in
		nodes) skip=(--skip a_digest_finds_the_part_that_differs) ;;
	esac
	cargo "+$toolchain" miri test --locked --no-fail-fast -p "rtc-json-$crate" "${only[@]}" -- "${skip[@]}"
done
