#!/bin/bash
# Asterisk 22, the media server and registrar of the demo and of the tests.
#
#   asterisk.sh get                       installs it into its own folder, once (root; some 40 s, 630 MB)
#   asterisk.sh path                      prints that folder
#   asterisk.sh start WORKDIR [options]   starts an instance that keeps everything in WORKDIR; returns when it is up
#       --sip PORT        SIP over UDP (5160)
#       --address ADDRESS of SIP (127.0.0.1)
#       --rtp FIRST-LAST  RTP ports (21000-21199)
#       --kamailio H:P    where Kamailio listens for SIP (127.0.0.1:5060)
#       --genesys H:P     where calls to 90xx go (127.0.0.1:5170)
#       --media ADDRESS   where sound is sent and taken (127.0.0.1); own: an address of this machine that is not loopback, for Firefox
#   asterisk.sh rx WORKDIR COMMAND        runs a command of its command line
#   asterisk.sh stop WORKDIR              stops it; WORKDIR stays for its logs
#
# Debian 12 has no package of it, the suite "forky" has 22. It is unpacked into a folder of its own and started with the
# C library from there, so nothing of the system changes, starting needs no root, and several instances run side by side.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

home=$cache/asterisk

usage() { sed -n '2,/^set -/{/^set -/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }

# Runs a program of the folder with that folder's own loader and libraries.
run_inside() {
	local program=$1; shift
	local multiarch; multiarch=$(multiarch)
	# the host's OpenSSL settings may name providers that this OpenSSL does not have
	OPENSSL_CONF=/dev/null exec "$home/usr/lib/$multiarch/$(basename "$home"/usr/lib/"$multiarch"/ld-linux-*.so.*)" \
		--library-path "$home/usr/lib/$multiarch" "$home$program" "$@"
}

multiarch() { basename "$(dirname "$(dirname "$(echo "$home"/usr/lib/*/asterisk/modules)")")"; }

get() {
	if [ -x "$home/usr/sbin/asterisk" ]; then return 0; fi
	say "installing Asterisk 22 into $home"
	debian_folder forky "$home" apt-get install -y --no-install-recommends asterisk asterisk-core-sounds-en-wav
	as_root chroot "$home" apt-get clean
}

# Music on hold: a tune of three notes (523, 659, 784 Hz, each 0.4 s), which a measurement can tell from speech and beeps. Raw u-law.
music() {
	awk 'function ulaw(x,   sign, exponent, step) {
			sign = 0; if (x < 0) { x = -x; sign = 128 }
			x += 132
			for (exponent = 7; exponent > 0 && x < 2 ^ (exponent + 7); exponent--);
			step = int(x / 2 ^ (exponent + 3)) % 16
			return 255 - (sign + exponent * 16 + step)
		}
		BEGIN {
			split("523 659 784", note)
			for (n = 1; n <= 3; n++)
				for (i = 0; i < 3200; i++)
					printf "\\x%02x", ulaw(8000 * sin(6.283185307 * note[n] * i / 8000))
		}' | { local bytes; IFS= read -r bytes || true; printf %b "$bytes"; }
}

# Asterisk never offers a candidate in 127.0.0.0/8, so it needs one other address to show as 127.0.0.1.
host_address() {
	local address
	address=$(ip -4 -o addr show up | awk '{ split($4, a, "/"); if (a[1] !~ /^127\./) { print a[1]; exit } }')
	if [ -z "$address" ]; then
		address=198.18.0.1 # reserved for tests (RFC 2544)
		as_root ip addr add $address/32 dev lo
		: > "$1/lo-address"
	fi
	echo "$address"
}

start() {
	local dir=$1 sip=5160 bind=127.0.0.1 rtp=21000-21199 kamailio=127.0.0.1:5060 genesys=127.0.0.1:5170 media=127.0.0.1; shift
	while [ $# -gt 0 ]; do
		[ $# -ge 2 ] || usage
		case $1 in
			--sip) sip=$2 ;;
			--address) bind=$2 ;;
			--rtp) rtp=$2 ;;
			--kamailio) kamailio=$2 ;;
			--genesys) genesys=$2 ;;
			--media) media=$2 ;;
			*) usage ;;
		esac
		shift 2
	done
	[ -x "$home/usr/sbin/asterisk" ] || die "Asterisk is not installed: run scripts/asterisk.sh get"
	mkdir -p "$dir"
	dir=$(cd "$dir" && pwd)
	stop "$dir"
	mkdir -p "$dir"/{etc,run,log,spool/monitor,cache,lib/keys,music}
	rm -f "$dir"/lib/astdb.sqlite3* # contacts would outlive a restart there
	# the packaged sounds/en is a link into /etc/alternatives, which leads nowhere from out here
	rm -rf "$dir/data"
	mkdir -p "$dir/data/sounds"
	ln -s "$home"/usr/share/asterisk/documentation "$dir/data/documentation"
	ln -s "$home"/usr/share/asterisk/sounds/en_US_f_Allison "$dir/data/sounds/en"
	music > "$dir/music/tune.ulaw"
	local address file; address=$(host_address "$dir")
	if [ "$media" = own ]; then media=$address; fi
	# features that are not used; without the files Asterisk logs an error for each
	: > "$dir/etc/acl.conf"
	for file in ccss udptl pjproject manager; do echo '[general]' > "$dir/etc/$file.conf"; done
	for file in cdr cel; do printf '[general]\nenable = no\n' > "$dir/etc/$file.conf"; done
	for file in "$root"/tests/asterisk/*.conf; do
		sed -e "s|@WORKDIR@|$dir|g; s|@ROOT@|$home|g; s|@MULTIARCH@|$(multiarch)|g; s|@SIP_PORT@|$sip|g; s|@SIP_ADDRESS@|$bind|g" \
			-e "s|@RTP_START@|${rtp%-*}|g; s|@RTP_END@|${rtp#*-}|g; s|@KAMAILIO@|$kamailio|g; s|@GENESYS@|$genesys|g" \
			-e "s|@HOST_ADDRESS@|$address|g; s|@MEDIA_ADDRESS@|$media|g" "$file" > "$dir/etc/$(basename "$file")"
	done
	: > "$dir/log/full"
	(run_inside /usr/sbin/asterisk -f -C "$dir/etc/asterisk.conf" > "$dir/log/out" 2>&1 < /dev/null) &
	echo $! > "$dir/pid"
	local i
	for ((i = 0; i < 150; i++)); do
		if rx "$dir" 'core waitfullybooted' 2>/dev/null | grep -q fully; then
			echo "$!"
			return 0
		fi
		kill -0 $! 2>/dev/null || break
		sleep 0.1
	done
	tail -n 5 "$dir/log/out" >&2
	stop "$dir"
	die "Asterisk did not come up: see $dir/log"
}

rx() { (run_inside /usr/sbin/asterisk -C "$1/etc/asterisk.conf" -rx "$2" < /dev/null); }

stop() {
	local dir=$1 pid i
	if [ -f "$dir/pid" ]; then
		pid=$(cat "$dir/pid")
		# the number may belong to somebody else by now
		if tr '\0' '\n' 2>/dev/null < "/proc/$pid/cmdline" | grep -qxF "$dir/etc/asterisk.conf"; then
			kill "$pid" 2>/dev/null || true
			for ((i = 0; i < 50; i++)); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
			kill -9 "$pid" 2>/dev/null || true
		fi
		rm -f "$dir/pid"
	fi
	if [ -f "$dir/lo-address" ]; then
		as_root ip addr del 198.18.0.1/32 dev lo || true
		rm -f "$dir/lo-address"
	fi
}

case ${1:-} in
	get) get ;;
	path) echo "$home" ;;
	start) [ $# -ge 2 ] || usage; shift; start "$@" ;;
	rx) [ $# = 3 ] || usage; rx "$(cd "$2" && pwd)" "$3" ;;
	stop) [ $# = 2 ] || usage; if [ -d "$2" ]; then stop "$(cd "$2" && pwd)"; fi ;;
	*) usage ;;
esac
