#!/bin/bash
# kamailio-root.sh SUITE: a Debian suite with its Kamailio in a folder of its own, once (root; about a minute, 500 MB).
# Prints the folder: give it as KAMAILIO_ROOT to kamailio-module/Makefile.
#
#   trixie    Kamailio 6.0
#   forky     Kamailio 6.1
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=${1:-}
case $suite in
	trixie | forky) ;;
	*) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
home=$cache/kamailio-$suite
if [ -x "$home/usr/sbin/kamailio" ]; then echo "$home"; exit 0; fi

mirror=$(debian_mirror)
[ -n "$mirror" ] || die "found no mirror in apt's sources"
command -v debootstrap >/dev/null || die "debootstrap is missing: run scripts/install-deps.sh asterisk"
say "installing Kamailio of $suite into $home"
# a folder that was begun and not finished must never look finished
part=$home.part
as_root rm -rf "$part"
as_root mkdir -p "$cache"
# Debian 12's debootstrap may have no script of a newer suite's name; sid's serves
as_root debootstrap --variant=minbase --include=ca-certificates "$suite" "$part" "$mirror" /usr/share/debootstrap/scripts/sid >&2
# a mirror's Release file may be older than its Valid-Until
as_root chroot "$part" apt-get -o Acquire::Check-Valid-Until=false update >&2
as_root env DEBIAN_FRONTEND=noninteractive chroot "$part" apt-get install -y --no-install-recommends \
	kamailio kamailio-websocket-modules kamailio-tls-modules kamailio-sqlite-modules kamailio-extra-modules kamailio-utils-modules >&2
as_root chroot "$part" apt-get clean
as_root mv "$part" "$home"
echo "$home"
