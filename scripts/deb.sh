#!/bin/bash
# deb.sh: a Debian package of the built module, for the Kamailio of this machine. Prints the file's name.
#
# A module fits one version of Kamailio only, so the package depends on just that one. Two runs over the same tree give the same
# file to the byte. DEBFULLNAME and DEBEMAIL name its maintainer.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

name=kamailio-rtc-json-modules
so=kamailio-module/rtc_json.so
[ -f "$so" ] || die "nothing built yet: make module"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
kamailio=$(dpkg-query -W -f '${Version}' kamailio)
upstream=${kamailio%-*}
# 5.6.3 and what Debian makes of it, but no 5.6.4
next=${upstream%.*}.$((${upstream##*.} + 1))
modules=$(dirname "$(dpkg -L kamailio | grep -m 1 '/modules/tm\.so$')")
arch=$(dpkg --print-architecture)
# who answers for it, as Debian's own tools are told; mail to root@localhost stays on the machine that it is used on
maintainer="${DEBFULLNAME:-local build of rtc_json} <${DEBEMAIL:-root@localhost}>"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2> /dev/null || stat -c %Y CHANGELOG.md)}

mkdir -p run
work=$(mktemp -d run/deb.XXXXXX)
trap 'rm -rf "$work"' EXIT
tree=$work/tree
doc=$tree/usr/share/doc/$name

install -D -m 644 "$so" "$tree$modules/rtc_json.so"
strip --strip-unneeded "$tree$modules/rtc_json.so"
install -D -m 644 packaging/systemd/rtc_json.conf "$tree/usr/lib/systemd/system/kamailio.service.d/rtc_json.conf"
install -d "$doc/examples"
install -m 644 kamailio.cfg.example "$doc/examples/kamailio.cfg"
install -m 644 kamailio-module/README docs/*.md docs/*.yaml "$doc"
install -D -m 644 docs/schema/rtc-json.schema.json "$doc/schema/rtc-json.schema.json"
install -m 644 turnserver.conf.example "$doc/examples/turnserver.conf"
install -m 644 monitoring/* kamailio-module/rtc_json-create.sql "$doc/examples"
gzip -9n < CHANGELOG.md > "$doc/changelog.gz"
{
	printf '%s (%s) unstable; urgency=medium\n\n' "$name" "$version+kamailio$upstream-1"
	printf '  * Built for Kamailio %s. What is new stands in changelog.gz.\n\n' "$upstream"
	printf ' -- %s  %s\n' "$maintainer" "$(date -u -R -d "@$SOURCE_DATE_EPOCH")"
} | gzip -9n > "$doc/changelog.Debian.gz"
{
	printf 'rtc_json is free software under the GNU General Public License, version 2 or (at your option) any later version, as\n'
	printf 'Kamailio is. The text of the licence is in /usr/share/common-licenses/GPL-2.\n\n'
	node scripts/notices.mjs
} > "$doc/copyright"

# which packages have the libraries; Kamailio's own are found beside its modules
mkdir -p "$work/debian"
printf 'Source: %s\n\nPackage: %s\nArchitecture: any\n' "$name" "$name" > "$work/debian/control"
libraries=$(cd "$work" && dpkg-shlibdeps -O "-l$(dirname "$modules")" "tree$modules/rtc_json.so" 2> "$root/$work/shlibdeps.log" |
	sed -n 's/^shlibs:Depends=//p') || { cat "$work/shlibdeps.log" >&2; die "dpkg-shlibdeps failed"; }

install -d "$tree/DEBIAN"
cat > "$tree/DEBIAN/control" << CONTROL
Package: $name
Version: $version+kamailio$upstream-1
Architecture: $arch
Maintainer: $maintainer
Section: net
Priority: optional
Installed-Size: $(du -k --apparent-size -s "$tree/usr" | cut -f 1)
Depends: kamailio (>= $upstream), kamailio (<< $next), kamailio-websocket-modules, $libraries
Recommends: kamailio-tls-modules
Suggests: kamailio-sqlite-modules, asterisk, coturn
Description: telephone calls from browsers over a small JSON protocol
 The module rtc_json makes Kamailio the SIP user agent of browsers that speak a
 small JSON protocol over Kamailio's own WebSocket: no SIP stack runs in the
 page. An example configuration is in /usr/share/doc/$name/examples.
CONTROL
(cd "$tree" && find . -type f ! -path './DEBIAN/*' -printf '%P\0' | LC_ALL=C sort -z | xargs -0 md5sum) > "$tree/DEBIAN/md5sums"
find "$tree" -type d -exec chmod 755 {} +

mkdir -p dist
file=dist/${name}_$version+kamailio$upstream-1_$arch.deb
dpkg-deb --root-owner-group --build "$tree" "$file" >&2
echo "$file"
