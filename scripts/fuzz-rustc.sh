#!/bin/bash
# fuzz-rustc.sh RUSTC ARGUMENT...: a compiler for cargo (RUSTC_WRAPPER) that lets libFuzzer count only where an input steers the way:
# in this project's crates and in what parses for them. In ciphers, hashes and the like it would count for nothing, at every execution.
set -eu
rustc=$1; shift
crate= target=
for ((i = 1; i < $#; i++)); do
	next=$((i + 1))
	case ${!i} in
		--crate-name) crate=${!next} ;;
		--target) target=${!next} ;;
	esac
done
count=()
case $crate in
	rtc_json_fuzz | rtc_json_load) ;;
	rtc_json_* | serde_json | jsonwebtoken | httparse | postcard | der | spki | pkcs1 | pkcs8 | sec1 | pem_rfc7468 | base64 | percent_encoding | form_urlencoded)
		# what runs at build time has no target
		[ -z "$target" ] || read -ra count <<< "${FUZZ_COUNT:-}" ;;
esac
exec "$rustc" "$@" "${count[@]}"
