#!/bin/bash
# reproducible.sh: builds the module of the committed source twice, in two folders, and fails when they are not the same bytes.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

mkdir -p run
work=$(mktemp -d "$root/run/reproducible.XXXXXX")
trap 'rm -rf "$work"' EXIT
sums=()
# one commit for both, whatever happens to HEAD meanwhile
commit=$(git rev-parse HEAD)
for place in one another/and/deeper; do
	say "build in $place"
	mkdir -p "$work/$place"
	git archive "$commit" | tar x -C "$work/$place"
	env -u CARGO_TARGET_DIR make --no-print-directory -C "$work/$place" module >&2
	sums+=("$(sha256sum < "$work/$place/kamailio-module/rtc_json.so" | cut -d ' ' -f 1)")
done
printf '%s\n' "${sums[@]}"
[ "${sums[0]}" = "${sums[1]}" ] || die "the two builds differ"
if grep -aqF "$work" "$work/one/kamailio-module/rtc_json.so"; then die "the module holds the path of the folder it was built in"; fi
say "both builds are the same"
