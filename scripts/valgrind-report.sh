#!/bin/bash
# valgrind-report.sh FOLDER: what the logs of valgrind in that folder say of the module. Prints each report with a place in the module
# on its stack, and fails when there is one, or when valgrind saw nothing at all.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

shopt -s nullglob
logs=("${1:?folder}"/*.log)
whole=0
for log in "${logs[@]}"; do if grep -q 'ERROR SUMMARY' "$log"; then whole=$((whole + 1)); fi; done
[ "$whole" -gt 0 ] || die "no process ended under valgrind: nothing was seen"
# a report is what stands between two lines without text
found=$(for log in "${logs[@]}"; do
	sed -E 's/^==[0-9]+== ?//; s/^--[0-9]+--.*//' "$log" | awk -v RS= '/rtc_json/ { print $0 "\n" }'
done)
reports=$(grep -c . <<< "$found" || true)
if [ "$reports" -gt 0 ]; then
	head -n 200 <<< "$found"
	die "valgrind has found something in the module ($whole processes)"
fi
echo "$whole processes ended under valgrind, no report of the module"
