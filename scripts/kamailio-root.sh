#!/bin/bash
# kamailio-root.sh SUITE: a Debian suite with its Kamailio in a folder of its own, once (root; about a minute, 500 MB).
# Prints the folder: give it as KAMAILIO_ROOT to kamailio-module/Makefile.
#
#   bookworm  Kamailio 5.6
#   trixie    Kamailio 6.0
#   forky     Kamailio 6.1
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

suite=${1:-}
case $suite in
	bookworm | trixie | forky) ;;
	*) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
home=$cache/kamailio-$suite
if [ -x "$home/usr/sbin/kamailio" ]; then echo "$home"; exit 0; fi

say "installing Kamailio of $suite into $home"
debian_folder "$suite" "$home" apt-get install -y --no-install-recommends \
	kamailio kamailio-websocket-modules kamailio-tls-modules kamailio-sqlite-modules kamailio-extra-modules kamailio-utils-modules
as_root chroot "$home" apt-get clean
echo "$home"
