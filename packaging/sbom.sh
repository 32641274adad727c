#!/bin/bash
# sbom.sh FOLDER: the bill of materials of the module, as CycloneDX, into the folder: the crates that are linked into it.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$root"

out=${1:?folder}
version=$(sed -n '/^\[workspace.package\]/,/^version/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || date +%s)}
name=rtc_json-$version.cdx
# it writes beside each crate's Cargo.toml: in a copy of those files
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp -r Cargo.toml Cargo.lock build.rs src crates "$work/"
packaging/cargo-tool.sh cargo-cyclonedx cyclonedx --manifest-path "$work/Cargo.toml" --format json --no-build-deps \
	--target "$(rustc -vV | sed -n 's/^host: //p')" --override-filename "$name" --quiet
mkdir -p "$out"
# paths of the machine and a random serial number say nothing about the module
sed -E "/\"serialNumber\"/d; s|path\\+file://$work|path+file:///rtc_json|g; s|file://$work|file:///rtc_json|g; s|$work|/rtc_json|g" \
	"$work/$name.json" > "$out/$name.json"
echo "$out/$name.json"
