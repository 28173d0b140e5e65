#!/bin/sh
# SPDX-License-Identifier: AGPL-3.0-only
# What compose.yaml uses of the official image's entry, for an image made from Debian's packages.
set -eu
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  chown postgres:postgres "$PGDATA"
  chmod 0700 "$PGDATA"
  # shellcheck disable=SC2086 # options, one word each
  as_postgres initdb -D "$PGDATA" -U "$POSTGRES_USER" --pwfile "$POSTGRES_PASSWORD_FILE" --auth-host scram-sha-256 --auth-local trust $POSTGRES_INITDB_ARGS >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  echo "create database $POSTGRES_DB" | as_postgres postgres --single -D "$PGDATA" postgres >/dev/null
fi
# compose.yaml names the program first.
shift
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D "$PGDATA" -c "listen_addresses=*" -c unix_socket_directories=/tmp "$@"
