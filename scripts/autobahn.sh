#!/bin/bash
# autobahn.sh get | path: the Autobahn test suite for WebSockets (PyPI) in a folder of its own, once; prints the Python that runs it, and the
# folder. It is written in Python 2.7, which Debian 12 has no package of: RTC_JSON_PYTHON2 names one, else one in the PATH or of pyenv
# is taken. Ends with 3 where there is none.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

version=25.10.1
home=$cache/autobahn-$version

python2() {
	local candidate
	for candidate in "${RTC_JSON_PYTHON2:-}" python2.7 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python; do
		if [ -n "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (2, 7))' 2> /dev/null; then command -v "$candidate"; return; fi
	done
	echo "autobahn.sh: no Python 2.7 (RTC_JSON_PYTHON2)" >&2
	return 3
}

case ${1:-} in
	get)
		python=$(python2) || exit 3
		if [ ! -d "$home" ]; then
			[ -z "${RTC_JSON_NO_INSTALL:-}" ] || die "the Autobahn test suite is missing"
			say "installing the Autobahn test suite into $home (some minutes)"
			rm -rf "$home.part"
			"$python" -m pip install --quiet --disable-pip-version-check --target "$home.part" "autobahntestsuite==$version" >&2
			mv "$home.part" "$home"
		fi
		;;
	path)
		python=$(python2) || exit 3
		[ -d "$home" ] || exit 3
		printf '%s\n%s\n' "$python" "$home"
		;;
	*) sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
