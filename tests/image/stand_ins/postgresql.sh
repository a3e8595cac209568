#!/bin/sh
# PostgreSQL of Debian's package in the place of the image postgres:17, with the variables and the
# user of that image: makes the database in $PGDATA once, and serves it on the loopback interface.
set -eu
PATH=$(echo /usr/lib/postgresql/*/bin):$PATH
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /tmp/password --encoding UTF8 --locale C \
        --auth-local trust --auth-host scram-sha-256 >/dev/null
    rm /tmp/password
    pg_ctl --pgdata "$PGDATA" --options "-c listen_addresses= -c unix_socket_directories=/tmp" --wait start >/dev/null
    [ "$POSTGRES_DB" = postgres ] || createdb --host /tmp --username "$POSTGRES_USER" "$POSTGRES_DB" --maintenance-db postgres
    pg_ctl --pgdata "$PGDATA" --mode fast --wait stop >/dev/null
fi
# /var/run/postgresql is root's here: podman gives a volume the owner of the folder below it only where that is no link.
exec postgres -D "$PGDATA" -c listen_addresses=127.0.0.1 -c unix_socket_directories=/tmp
