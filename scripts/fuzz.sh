#!/bin/bash
# fuzz.sh SECONDS [TARGET...]: runs each fuzz target (all by default) for so long, one after the other, with AddressSanitizer. The
# inputs that were kept lie in fuzz/corpus, what was found in fuzz/artifacts. The last lines say how many executions there were.
# Ends with a failure at the first target that found something.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

seconds=${1:?seconds}; shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//'); fi
host=$(rustc -vV | sed -n 's/^host: //p')
# sanitizers are for unstable compilers; this lets the stable one that builds all the rest have them
export RUSTC_BOOTSTRAP=1
fuzz() { packaging/cargo-tool.sh cargo-fuzz fuzz "$@" --fuzz-dir fuzz --target "$host"; }

node scripts/fuzz-seeds.mjs run/fuzz-seeds >&2
fuzz build >&2
summary=()
for target in "${targets[@]}"; do
	mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
	log=run/fuzz-$target.log
	say "$target for $seconds s"
	status=0
	# a Rust panic aborts there, so it is found like any other crash; leaks are found by the sanitizer
	"fuzz/target/$host/release/$target" "fuzz/corpus/$target" "run/fuzz-seeds/$target" "fuzz/regression/$target" \
		-dict="fuzz/dictionaries/$target.dict" -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$seconds" \
		-max_len=20000 -timeout=25 -rss_limit_mb=4096 -print_final_stats=1 > "$log" 2>&1 || status=$?
	runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
	covered=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
	summary+=("$target ${runs:-0} executions in $seconds s, ${covered:-cov: 0}, exit $status")
	if [ "$status" != 0 ]; then
		tail -n 40 "$log" >&2
		printf '%s\n' "${summary[@]}"
		die "$target found something: fuzz/artifacts/$target, $log"
	fi
done
printf '%s\n' "${summary[@]}"
