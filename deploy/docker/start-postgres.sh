#!/bin/sh
# What the official image does with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, for Debian's PostgreSQL.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/data
if [ ! -s "$data/PG_VERSION" ]; then
  umask 077
  echo "$POSTGRES_PASSWORD" > /tmp/password
  "$bin/initdb" --pgdata "$data" --encoding UTF8 --locale C.UTF-8 \
    --username "$POSTGRES_USER" --pwfile /tmp/password --auth scram-sha-256 --auth-local trust
  rm /tmp/password
  echo "listen_addresses = '*'" >> "$data/postgresql.conf"
  echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
  "$bin/pg_ctl" --pgdata "$data" --wait --options "-c listen_addresses='' -k $PGHOST" start
  "$bin/createdb" --username "$POSTGRES_USER" "$POSTGRES_DB"
  "$bin/pg_ctl" --pgdata "$data" --wait stop
fi
exec "$bin/postgres" -D "$data" -k "$PGHOST"
