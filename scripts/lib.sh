# lib.sh: what the scripts here share. Sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${RTC_JSON_CACHE:-/var/cache/rtc_json}

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

# version_at_least HAVE WANT
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }
