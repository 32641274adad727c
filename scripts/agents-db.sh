#!/bin/bash
# agents-db.sh FILE REALM USER:PASSWORD...: makes Kamailio's SQLite database anew, with its own schema and these users in
# `subscriber` (HA1 only: no clear password is stored).
set -euo pipefail
file=$1 realm=$2; shift 2
schema=/usr/share/kamailio/db_sqlite
rm -f "$file"
{
	echo 'BEGIN;'
	cat "$schema/standard-create.sql" "$schema/auth_db-create.sql"
	for agent in "$@"; do
		user=${agent%%:*} password=${agent#*:}
		ha1=$(printf '%s:%s:%s' "$user" "$realm" "$password" | md5sum | cut -d ' ' -f 1)
		echo "INSERT INTO subscriber (username, domain, ha1) VALUES ('${user//\'/\'\'}', '${realm//\'/\'\'}', '$ha1');"
	done
	echo 'COMMIT;'
} | sqlite3 -bail "$file"
