#!/bin/bash
# install-deps.sh [GROUP...]: installs what is missing for the groups (all of them by default), and nothing when all is there.
#
#   build     compiler, Rust, what the headers of Kamailio need
#   kamailio  Kamailio and its modules
#   client    Node and the client's packages
#   test      Kamailio's modules for other databases, SIPp, rtpengine, Chromium, Firefox, the tests' packages
#   api       coturn, PostgreSQL, MariaDB, and the tests' packages from PyPI in a folder of their own
#   demo      what `make demo` runs
#   asterisk  Asterisk 22 in a folder of its own (scripts/asterisk.sh)
#   fuzz      what libFuzzer is built with
#   memory    valgrind
#   packages  what makes the Debian package
#   try-packages  the folder that it is tried in, and what makes the bill of materials of `make dist`
#   bench     the other servers of `make bench-peers`; only when asked for
#
# Debian packages by root or sudo. RTC_JSON_NO_INSTALL=1 only tells what is missing, and fails when something is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

declare -A packages=(
	[build]="gcc make libc6-dev libclang-dev dpkg-dev openssl ca-certificates"
	[kamailio]="kamailio kamailio-websocket-modules kamailio-tls-modules kamailio-sqlite-modules kamailio-extra-modules kamailio-utils-modules netbase sqlite3 openssl"
	[client]="ca-certificates"
	[test]="kamailio-postgres-modules kamailio-mysql-modules sip-tester rtpengine-daemon chromium firefox-esr iproute2 util-linux procps iptables"
	[api]="coturn postgresql mariadb-server-core mariadb-client-core python3 python3-venv"
	[demo]="iproute2 procps"
	[asterisk]="debootstrap iproute2"
	[fuzz]="g++"
	[memory]="valgrind"
	[packages]="dpkg-dev binutils"
	[try-packages]="debootstrap"
	[bench]="janus"
)

groups=("$@")
if [ ${#groups[@]} = 0 ]; then groups=(build kamailio client test api demo asterisk packages try-packages fuzz memory); fi
for group in "${groups[@]}"; do [ -n "${packages[$group]:-}" ] || die "no group $group"; done
wants() { local g; for g in "${groups[@]}"; do [ "$g" = "$1" ] && return 0; done; return 1; }

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# A cargo that is new enough, wherever it comes from, serves; Debian's newest goes by another package name.
rust_missing() {
	local want have
	want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
	have=$(cargo --version 2>/dev/null | cut -d ' ' -f 2) || true
	if [ -n "$have" ] && version_at_least "$have" "$want"; then return 1; fi
}

# Any Node from 18 on that brings npm serves.
node_missing() {
	local have
	have=$(node --version 2>/dev/null | tr -d v) || true
	if [ -n "$have" ] && version_at_least "$have" 18 && command -v npm > /dev/null; then return 1; fi
}

missing=()
for group in "${groups[@]}"; do
	for package in ${packages[$group]}; do installed "$package" || missing+=("$package"); done
done
if wants build && rust_missing; then missing+=(rustc-web cargo-web); fi
if { wants client || wants test || wants demo; } && node_missing; then missing+=(nodejs npm); fi

# Packages must not start servers of their own here: a kamailio service would take port 5060. An existing policy stays.
no_services() {
	policy=/usr/sbin/policy-rc.d
	if [ -e "$policy" ]; then return; fi
	printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" > /dev/null
	as_root chmod 755 "$policy"
	trap 'as_root rm -f "$policy"' EXIT
	trap 'exit 130' INT TERM
}

if [ ${#missing[@]} -gt 0 ]; then
	mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
	if [ -n "${RTC_JSON_NO_INSTALL:-}" ]; then die "missing packages: ${missing[*]}"; fi
	say "installing ${missing[*]}"
	no_services
	as_root apt-get update -q >&2
	# the tests make clusters of their own: the package is not to leave one on this machine that starts with it
	if [[ " ${missing[*]} " == *" postgresql "* ]] && ! installed postgresql-common; then
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql-common >&2
		as_root sed -i 's/^#\?create_main_cluster *=.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}" >&2
	hash -r
fi

# the headers of Kamailio are kept there, by whoever builds
if wants build && [ ! -w "$cache" ] && [ -z "${RTC_JSON_NO_INSTALL:-}" ]; then
	as_root mkdir -p "$cache"
	[ -w "$cache" ] || as_root chown "$(id -u)" "$cache"
fi

# npm_packages DIR: as its lock file says; skipped while the lock file is the one that was installed last.
npm_packages() {
	local stamp=$1/node_modules/.installed-lock
	[ -f "$1/package-lock.json" ] || return 0
	if cmp -s "$1/package-lock.json" "$stamp"; then return 0; fi
	if [ -n "${RTC_JSON_NO_INSTALL:-}" ]; then die "the npm packages of $1 are missing"; fi
	say "installing the npm packages of $1"
	(cd "$1" && npm ci --no-fund --no-audit --loglevel=error) >&2
	cp "$1/package-lock.json" "$stamp"
}

if wants client || wants demo; then npm_packages client; fi
if wants test; then npm_packages client; npm_packages tests; fi

# what the tests have in Python, as the list of versions says; made anew when the list has changed
if wants api && ! cmp -s tests/python/requirements.txt tests/python/.venv/.installed; then
	if [ -n "${RTC_JSON_NO_INSTALL:-}" ]; then die "the Python packages of the tests are missing"; fi
	say "installing the Python packages of the tests"
	rm -rf tests/python/.venv
	python3 -m venv tests/python/.venv
	tests/python/.venv/bin/pip install --quiet --disable-pip-version-check -r tests/python/requirements.txt >&2
	cp tests/python/requirements.txt tests/python/.venv/.installed
fi

if wants asterisk; then
	if [ -n "${RTC_JSON_NO_INSTALL:-}" ] && [ ! -x "$(scripts/asterisk.sh path)/usr/sbin/asterisk" ]; then
		die "Asterisk 22 is missing"
	fi
	scripts/asterisk.sh get
fi

# the tests of the packages have no network: what they need is fetched here
if wants try-packages; then
	suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	if [ -n "${RTC_JSON_NO_INSTALL:-}" ]; then
		[ -x "$cache/kamailio-$suite/usr/sbin/kamailio" ] || die "the Kamailio of $suite in a folder of its own is missing"
	fi
	scripts/kamailio-root.sh "$suite" > /dev/null
	packaging/cargo-tool.sh cargo-cyclonedx cyclonedx --version > /dev/null
fi
