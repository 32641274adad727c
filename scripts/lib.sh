# lib.sh: what the scripts here share. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${RTC_JSON_CACHE:-/var/cache/rtc_json}
# what a user's own PATH lacks on Debian: debootstrap, kamailio, ip
export PATH=$PATH:/usr/sbin:/sbin

say() { printf '==> %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# Runs a command as root: directly, or through sudo.
as_root() {
	if [ "$(id -u)" = 0 ]; then "$@"
	elif command -v sudo >/dev/null; then sudo -- "$@"
	else die "needs root or sudo for: $*"
	fi
}

# The Debian mirror from which this machine's own apt takes its release.
debian_mirror() {
	local release
	release=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
	# a machine has some of these files and not others: cat's complaint is no failure
	{
		# one line for each entry of either format: URI SUITE...
		cat /etc/apt/sources.list.d/*.sources 2> /dev/null | awk -v RS= '{
			uri = suites = ""; count = split($0, lines, "\n")
			for (i = 1; i <= count; i++) {
				if (lines[i] ~ /^URIs:/) { split(lines[i], words, " "); uri = words[2] }
				if (lines[i] ~ /^Suites:/) suites = substr(lines[i], 8)
			}
			print uri, suites
		}' || true
		cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null |
			sed -nE 's/^deb +(\[[^]]*\] +)?//p' || true
	} | awk -v release="$release" '{ for (i = 2; i <= NF; i++) if ($i == release && $1 ~ /debian\/?$/) { print $1; exit } }'
}

# debian_folder SUITE FOLDER COMMAND...: a small Debian of that suite in a folder of its own, once. The command, an apt-get one,
# runs in it; a folder that was begun and not finished never looks finished.
debian_folder() {
	local suite=$1 folder=$2 part=$2.part mirror; shift 2
	if [ -d "$folder" ]; then return 0; fi
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || die "found no mirror in apt's sources"
	command -v debootstrap > /dev/null || die "debootstrap is missing: run scripts/install-deps.sh asterisk"
	as_root rm -rf "$part"
	as_root mkdir -p "$(dirname "$folder")"
	# debootstrap may have no script of a newer suite's name; sid's serves for all that is not old
	as_root debootstrap --variant=minbase --include=ca-certificates "$suite" "$part" "$mirror" /usr/share/debootstrap/scripts/sid >&2
	# a mirror's Release file may be older than its Valid-Until
	as_root chroot "$part" apt-get -o Acquire::Check-Valid-Until=false update >&2
	as_root env DEBIAN_FRONTEND=noninteractive chroot "$part" "$@" >&2
	as_root mv "$part" "$folder"
}

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
