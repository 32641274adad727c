#!/bin/bash
# fuzz.sh SECONDS [TARGET...]: runs each fuzz target (all by default) for so long, one after the other, JOBS processes at once (as
# many as there are processors). Nine tenths of the time go to short inputs without a sanitizer, which is ten times as fast, eight of
# them to very short ones of which only the edges are looked at and not how often each was passed, which is twice as fast again and
# reaches as many; in the last tenth AddressSanitizer reads all that was kept, and goes on with inputs of any length, with a look at
# what is compared.
# The inputs that were kept lie in fuzz/corpus, what was found in fuzz/artifacts. The executions are added to fuzz/tally.md.
# Ends with a failure at the first target that found something.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

seconds=${1:?seconds}; shift
targets=("$@")
if [ ${#targets[@]} = 0 ]; then mapfile -t targets < <(cd fuzz/fuzz_targets && ls | sed 's/\.rs$//'); fi
jobs=${JOBS:-$(nproc)}
host=$(rustc -vV | sed -n 's/^host: //p')
# bytes of the very short inputs, of which most are read, and of the short ones, with which all of a target's code is reached
declare -A shortest=([arena]=64 [ffi]=300 [frames]=300 [sdp]=300 [sip]=400 [token]=600)
declare -A short=([arena]=64 [ffi]=1200 [frames]=1200 [sdp]=700 [sip]=1200 [token]=1200)

# build KIND FLAGS COUNTING...: the programs, into fuzz/target/KIND. A Rust panic aborts there, so it is found like any other crash.
build() {
	local kind=$1 flags=$2; shift 2
	say "building the targets: $kind"
	# sanitizers and counters are for unstable compilers; this lets the stable one that builds all the rest have them
	RUSTC_BOOTSTRAP=1 RUSTC_WRAPPER=$root/scripts/fuzz-rustc.sh FUZZ_COUNT="$*" \
		RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Ccodegen-units=1$flags" \
		cargo build --release --locked --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "fuzz/target/$kind" >&2
}

# run KIND TARGET SECONDS OPTION...: JOBS processes that share the corpus. Prints executions, edges, seconds of processors,
# and the status of the first that failed.
run() {
	local kind=$1 target=$2 time=$3 pids=() job pid status=0 runs=0 got edges=0 used log; shift 3
	for ((job = 0; job < jobs; job++)); do
		"fuzz/target/$kind/$host/release/$target" "fuzz/corpus/$target" "run/fuzz-seeds/$target" "fuzz/regression/$target" \
			-dict="fuzz/dictionaries/$target.dict" -artifact_prefix="fuzz/artifacts/$target/" -max_total_time="$time" \
			-timeout=25 -rss_limit_mb=4096 -print_final_stats=1 "$@" > "run/fuzz-$target-$kind-$job.log" 2>&1 &
		pids+=($!)
	done
	for pid in "${pids[@]}"; do wait "$pid" || { got=$?; [ "$status" != 0 ] || status=$got; }; done
	for ((job = 0; job < jobs; job++)); do
		log=run/fuzz-$target-$kind-$job.log
		# a process that found something tells no statistics: then the last line with a number
		got=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
		[ -n "$got" ] || got=$(sed -n 's/^#\([0-9]*\)\t.*/\1/p' "$log" | tail -n 1)
		runs=$((runs + ${got:-0}))
		got=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1 | tr -dc 0-9)
		[ "${got:-0}" -le "$edges" ] || edges=$got
	done
	# of what this shell has waited for, user and system
	times > run/fuzz-times
	used=$(awk -F'[ms ]' 'NR == 2 { printf "%d", $1 * 60 + $2 + $4 * 60 + $5 + 0.5 }' run/fuzz-times)
	echo "$runs $edges $used $status"
}

node scripts/fuzz-seeds.mjs run/fuzz-seeds >&2
count="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table"
CARGO_PROFILE_RELEASE_LTO=fat build fast "" "$count"
build address " -Zsanitizer=address" "$count -Cllvm-args=-sanitizer-coverage-trace-compares"
summary=()
for target in "${targets[@]}"; do
	mkdir -p "fuzz/corpus/$target" "fuzz/artifacts/$target"
	tenth=$(((seconds + 9) / 10))
	say "$target for $seconds s, $jobs at once"
	for phase in "fast $((seconds - 2 * tenth)) ${shortest[$target]:-300} -use_counters=0" \
		"fast $tenth ${short[$target]:-1200}" "address $tenth 20000"; do
		read -r kind time length options <<< "$phase"
		[ "$time" -gt 0 ] || continue
		begun=$EPOCHSECONDS
		read -r runs edges used status < <(run "$kind" "$target" "$time" -max_len="$length" $options)
		took=$((EPOCHSECONDS - begun))
		# (another run of this script may be at it)
		flock run/fuzz-tally.lock node scripts/fuzz-tally.mjs fuzz/tally.md "$target" "$kind" "$runs" "$used" "$edges"
		summary+=("$(printf '%-7s %-8s %6d bytes %12d executions, %7d a second, %6d edges, exit %d' "$target" "$kind" "$length" "$runs" $((runs / (took > 0 ? took : 1))) "$edges" "$status")")
		if [ "$status" = 72 ]; then die "interrupted; what was done is in fuzz/tally.md"; fi
		if [ "$status" != 0 ]; then
			tail -q -n 40 "run/fuzz-$target-$kind-"*.log >&2
			printf '%s\n' "${summary[@]}"
			die "$target found something: fuzz/artifacts/$target, run/fuzz-$target-$kind-*.log"
		fi
	done
done
printf '%s\n' "${summary[@]}"
