#!/bin/bash
# dist.sh FOLDER: the source release (what is committed), the npm package and the bill of materials, with their checksums.
# Two runs over the same commit give the same files.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/lib.sh"
cd "$root"

out=${1:?folder}
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
[ "$version" = "$(node -p 'require("./client/package.json").version')" ] || die "client/package.json has another version than $version"
grep -qxF "## $version" CHANGELOG.md || die "CHANGELOG.md says nothing of $version"
mkdir -p "$out"
git archive --format=tar --prefix="rtc_json-$version/" HEAD | gzip -9n > "$out/rtc_json-$version.tar.gz"
npm --prefix client run --silent build >&2
npm pack ./client --silent --ignore-scripts --pack-destination "$out" > /dev/null
packaging/sbom.sh "$out" > /dev/null
files=("rtc_json-$version.tar.gz" "rtc-json-$version.tgz" "rtc_json-$version.cdx.json")
(cd "$out" && sha256sum "${files[@]}" > SHA256SUMS)
printf "$out/%s\n" "${files[@]}" SHA256SUMS
