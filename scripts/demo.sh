#!/bin/bash
# demo.sh [--asterisk]: everything for a call between two browser tabs, until Ctrl-C.
#
# Installs what is missing, builds, and starts Kamailio with two agents and a server for the page. With --asterisk,
# Asterisk 22 is the registrar and the media server behind Kamailio, and SIPp stands in for a contact centre behind Asterisk.
#
#   RTC_JSON_DEMO_HOST    address to listen on (127.0.0.1; with --asterisk only that)
#   RTC_JSON_DEMO_PORTS   "PAGE WSS SIP ASTERISK GENESYS" (8443 8444 5070 5071 5072)
#   RTC_JSON_DEMO_RTP     RTP ports of Asterisk (21000-21199)
#   RTC_JSON_DEMO_DIR     where its files are while it runs (run/demo, with --asterisk run/demo-asterisk); emptied before and after
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"
export PATH=$PATH:/usr/sbin:/sbin

asterisk=
case ${1:-} in
	'') ;;
	--asterisk) asterisk=yes ;;
	*) die "unknown option $1" ;;
esac

host=${RTC_JSON_DEMO_HOST:-127.0.0.1}
read -r page wss sip asterisk_sip genesys <<< "${RTC_JSON_DEMO_PORTS:-8443 8444 5070 5071 5072}"
rtp=${RTC_JSON_DEMO_RTP:-21000-21199}
realm=demo.local
dir=${RTC_JSON_DEMO_DIR:-$root/run/demo${asterisk:+-asterisk}}
if [ -n "$asterisk" ] && [ "$host" != 127.0.0.1 ]; then die "with --asterisk all stays on this machine"; fi

scripts/install-deps.sh build kamailio client demo ${asterisk:+test asterisk}
make --no-print-directory build

children=()
stop_all() {
	trap '' INT TERM HUP
	local pid i
	# the last one started is stopped first
	for ((i = ${#children[@]} - 1; i >= 0; i--)); do kill "${children[i]}" 2> /dev/null || true; done
	for pid in ${children[@]+"${children[@]}"}; do
		for ((i = 0; i < 100; i++)); do kill -0 "$pid" 2> /dev/null || break; sleep 0.1; done
		kill -9 "$pid" 2> /dev/null || true
	done
	scripts/asterisk.sh stop "$dir/asterisk"
	rm -rf "$dir"
	say "stopped"
}
trap 'stop_all' EXIT
trap 'echo >&2; exit 0' INT TERM HUP

# start NAME COMMAND...: in a session of its own, so that Ctrl-C reaches only this script; ends with it in any case.
start() {
	local name=$1; shift
	setsid setpriv --pdeathsig TERM "$@" > "$dir/$name.log" 2>&1 < /dev/null &
	children+=($!)
}

# wait_for NAME PID PORT: until the port is bound
wait_for() {
	local i
	for ((i = 0; i < 100; i++)); do
		if port_taken "$3"; then return 0; fi
		kill -0 "$2" 2> /dev/null || break
		sleep 0.1
	done
	tail -n 15 "$dir/$1.log" >&2
	die "$1 did not start"
}

port_taken() { [ -n "$(ss -Hltun "sport = :$1")" ]; }

# a demo that was killed outright may have left its Asterisk
scripts/asterisk.sh stop "$dir/asterisk"
rm -rf "$dir"
for port in "$page" "$wss" "$sip" ${asterisk:+"$asterisk_sip" "$genesys"}; do
	! port_taken "$port" || die "port $port is in use: choose others with RTC_JSON_DEMO_PORTS"
done

mkdir -p "$dir/kamailio" "$dir/pages"
scripts/certificate.sh run/certificate-demo "$host"

defines=(
	-A "MY_IP=$host" -A "SIP_PORT=$sip" -A "WSS_PORT=$wss"
	-A "TLS_CERT=\"$root/run/certificate-demo/cert.pem\"" -A "TLS_KEY=\"$root/run/certificate-demo/key.pem\""
	-A "ARENA_PATH=\"$dir/kamailio/arena\"" -A "CTL_SOCKET=\"unix:$dir/kamailio/ctl\""
)
if [ -n "$asterisk" ]; then
	say "starting Asterisk and the stand-in for Genesys"
	# (Firefox has no candidate in 127.0.0.0/8, and pairs none of its own with one there)
	scripts/asterisk.sh start "$dir/asterisk" --sip "$asterisk_sip" --rtp "$rtp" --kamailio "$host:$sip" \
		--genesys "127.0.0.1:$genesys" --media own > /dev/null
	start genesys sipp -sf tests/sipp/uas-genesys.xml -i 127.0.0.1 -p "$genesys" -mi 127.0.0.1 -rtp_echo -nostdin -s 9000
	wait_for genesys "${children[-1]}" "$genesys"
	# JsSIP works beside, as the fall-back
	node scripts/jssip-bundle.mjs "$dir/pages"
	defines+=(-A WITH_JSSIP -A "OUTBOUND_PROXY=\"sip:127.0.0.1:$asterisk_sip\"")
else
	scripts/agents-db.sh "$dir/kamailio/kamailio.sqlite" "$realm" 5001:pw5001 5002:pw5002
	node scripts/token.mjs --new-keys "$dir/jwt-keys.json"
	token_hint="
             or, from a page of your own, with a token:  node scripts/token.mjs --keys $dir/jwt-keys.json 5001"
	defines+=(-A "JWT_KEYS=\"$dir/jwt-keys.json\"")
	defines+=(-A WITH_LOCAL -A "REALM=\"$realm\"" -A "DB_URL=\"sqlite://$dir/kamailio/kamailio.sqlite\"")
fi

modules=$(dirname "$(find /usr/lib /usr/lib64 /usr/local/lib /usr/local/lib64 -path '*/kamailio/modules/tm.so' -print -quit 2> /dev/null)")
start kamailio kamailio -f kamailio.cfg.example -DD -E -m 256 -Y "$dir/kamailio" -P "$dir/kamailio/pid" \
	-L "$root/kamailio-module:$modules" "${defines[@]}"
wait_for kamailio "${children[-1]}" "$wss"
start page node scripts/serve.mjs --host "$host" --port "$page" --cert run/certificate-demo/cert.pem \
	--key run/certificate-demo/key.pem client "$dir/pages"
wait_for page "${children[-1]}" "$page"

cat << TEXT

  Open       https://$host:$page/index-custom.html?server=$wss   in two tabs or browsers
             The certificate was made here and now, so accept it; Firefox wants that also at https://$host:$wss/
  Log in as  5001 with password pw5001 in one, 5002 with password pw5002 in the other${token_hint:-}
  Call       the one from the other${asterisk:+; or from one alone:
             600 echo, 1003 rings for 2 s and then echo, 601 a tone, 486 busy, 700 conference,
             9000 the contact centre (a stand-in for Genesys behind Asterisk)
  JsSIP      https://$host:$page/index-minimal.html?server=$wss as 5003; both side by side, measured:
             https://$host:$page/compare.html?server=$wss}
  Logs       $dir/*.log
  Stop       Ctrl-C

TEXT
wait -n "${children[@]}" || true
die "one of the servers ended: $(tail -n 3 "$dir"/*.log)"
