#!/bin/sh
# Prints the compiler flags with which a module must be built so that the installed Kamailio loads it.
#
#   scripts/kamailio-flags.sh            for the Kamailio of this machine
#   KAMAILIO_ROOT=DIR ...                for the one installed under DIR (a chroot)
#
# Kamailio compares two strings of a module with its own, to the letter: the version and the list of compile flags.
# Both are taken from an installed module (tm.so), not from `kamailio -v`: in some versions the two differ.
set -eu
root=${KAMAILIO_ROOT:-}

tm=$(find "$root/usr/lib" "$root/usr/lib64" "$root/usr/local/lib" "$root/usr/local/lib64" \
  -path '*/kamailio/modules/tm.so' 2>/dev/null | head -n 1)
[ -n "$tm" ] || {
  echo "kamailio-flags: no kamailio/modules/tm.so found${root:+ under $root}" >&2
  exit 1
}
strings=$(tr '\000' '\n' < "$tm" | grep -aE '^(kamailio [0-9][^ ]* \(.*/.*\)|USE_TCP, .*)$')

# "kamailio 5.6.3 (x86_64/linux)" is NAME VERSION (ARCH/OS)
set -- $(echo "$strings" | sed -n 's|^kamailio \([^ ]*\) (\(.*\)/\(.*\))$|\1 \2 \3|p' | head -n 1)
[ $# -eq 3 ] || {
  echo "kamailio-flags: no version string in $tm" >&2
  exit 1
}
version=$1 arch=$2 os=$3

flags=
for flag in $(echo "$strings" | grep -a '^USE_TCP, ' | head -n 1 | tr -d ' ' | tr ',-' '  '); do
  case $flag in
    TLS_PTHREAD_MUTEX_SHARED) flags="$flags -DKSR_PTHREAD_MUTEX_SHARED" ;; # shown under another name than it is set
    *) flags="$flags -D$flag" ;;
  esac
done
# 6.1.5 and 6.2.0-dev1 alike give 6001005 and 6002000
val=$(echo "${version%%-*}" | awk -F. '{ printf "%d%03d%03d", $1, $2, $3 }')

# 6.1 writes "Linux" into its version string, and yet its sources ask for __OS_linux
os_id=$(echo "$os" | tr 'A-Z' 'a-z')

# what the server's own build sets beside the flags of that string
echo "${flags# } -DNAME='\"kamailio\"' -DVERSION='\"$version\"' -DVERSIONVAL=$val -DARCH='\"$arch\"'" \
  "-DOS='${os_id}_' -DOS_QUOTED='\"$os\"' -D__CPU_$arch -D__OS_$os_id -DCOMPILER='\"gcc\"'" \
  "-DUSE_CORE_STATS -DSTATISTICS -DMALLOC_STATS -DWITH_XAVP -DCC_GCC_LIKE_ASM -DADAPTIVE_WAIT_LOOPS=1024" \
  "-DHAVE_GETHOSTBYNAME2 -DHAVE_UNION_SEMUN -DHAVE_SCHED_YIELD -DHAVE_MSG_NOSIGNAL -DHAVE_MSGHDR_MSG_CONTROL" \
  "-DHAVE_ALLOCA_H -DHAVE_TIMEGM -DHAVE_SCHED_SETSCHEDULER -DHAVE_IP_MREQN -DHAVE_EPOLL -DHAVE_SIGIO_RT -DHAVE_SELECT" \
  "-DCFG_DIR='\"/etc/kamailio/\"' -DSHARE_DIR='\"/usr/share/kamailio/\"' -DRUN_DIR='\"/var/run/kamailio/\"'"
