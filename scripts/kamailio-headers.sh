#!/bin/sh
# Puts the source of the installed Kamailio (same version to the letter) into a cache folder and prints the folder.
# A module needs its headers, and Debian ships no -dev package for it.
#
#   scripts/kamailio-headers.sh          for the Kamailio of this machine
#   KAMAILIO_ROOT=DIR  ...               for the one installed under DIR (a chroot)
#   RTC_JSON_CACHE=DIR ...               another cache than /var/cache/rtc_json
#
# The machine's own apt sources and lists stay as they are: the source package comes through a private copy of them.
set -eu
root=${KAMAILIO_ROOT:-}
cache=${RTC_JSON_CACHE:-/var/cache/rtc_json}

version=$(dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' kamailio) || {
  echo "kamailio-headers: no package kamailio is installed${root:+ under $root}" >&2
  exit 1
}
upstream=${version#*:}
upstream=${upstream%-*}
dir=$cache/kamailio-$upstream
if [ -e "$dir/src/.complete" ]; then
  echo "$dir/src"
  exit 0
fi

mkdir -p "$dir"
work=$(mktemp -d "$dir/fetch.XXXXXX")
trap 'rm -rf "$work"; rmdir "$dir" 2>/dev/null || true' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$work/src"
for f in "$root"/etc/apt/sources.list.d/*.sources; do
  [ -e "$f" ] || continue
  sed -e 's/^Types:.*/Types: deb-src/' -e "s|^Signed-By: /|Signed-By: $root/|" "$f" > "$work/parts/$(basename "$f")"
done
for f in "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*.list; do
  [ -e "$f" ] || continue
  sed -n -e "s|signed-by=/|signed-by=$root/|" -e 's/^deb /deb-src /p' "$f" > "$work/parts/$(basename "$f").list"
done

# its own list folder: an update with other sources would wipe the lists of the machine
set -- -o Dir::Etc::SourceList=/dev/null -o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists" \
  -o Acquire::Check-Valid-Until=false -o Acquire::Retries=3
[ -z "$root" ] || set -- "$@" -o "Dir::Etc::TrustedParts=$root/etc/apt/trusted.gpg.d"
apt-get "$@" update >&2
# --tar-only: the headers are in the upstream tarball, and not every mirror has the signature beside it
(cd "$work" && apt-get "$@" source --download-only --tar-only "kamailio=$version" >&2) || {
  echo "kamailio-headers: apt has no source of kamailio $version; unpack it yourself and build with KAMAILIO_SRC=DIR" >&2
  exit 1
}

tar xf "$(find "$work" -name 'kamailio_*.orig.tar.*' ! -name '*.asc')" -C "$work/src" --strip-components=1
[ -e "$work/src/src/core/sr_module.h" ] || {
  echo "kamailio-headers: the source package of kamailio $version has no src/core/sr_module.h" >&2
  exit 1
}
touch "$work/src/.complete"
rm -rf "$dir/src"
mv "$work/src" "$dir/src"
echo "$dir/src"
