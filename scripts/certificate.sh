#!/bin/bash
# certificate.sh DIR [NAME...]: a self-signed certificate DIR/cert.pem with DIR/key.pem, for the demo and the tests. Kept as
# long as it is valid for another day. NAMEs (host names or addresses) are added to localhost and 127.0.0.1.
set -euo pipefail
dir=$1; shift
mkdir -p "$dir"
names=DNS:localhost,IP:127.0.0.1,IP:::1
for name in "$@"; do
	case $name in
		127.0.0.1 | localhost) ;;
		*[!0-9.]*) names+=,DNS:$name ;;
		*) names+=,IP:$name ;;
	esac
done
# test files may run side by side
exec 9> "$dir/lock"
flock 9
if [ -f "$dir/cert.pem" ] && [ "$(cat "$dir/names" 2>/dev/null)" = "$names" ] &&
	openssl x509 -checkend 86400 -noout -in "$dir/cert.pem" > /dev/null; then
	exit 0
fi
umask 077
# 397 days: browsers refuse certificates that are valid for longer
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 397 -subj /CN=localhost \
	-addext "subjectAltName=$names" -keyout "$dir/key.pem" -out "$dir/cert.pem" 2> /dev/null
echo "$names" > "$dir/names"
