#!/bin/sh
# Install the distribution's PostgreSQL server for the tests, without asking and without starting it.
set -eu

command -v apt-get >/dev/null || { echo "No apt-get here: install PostgreSQL by hand." >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo --non-interactive "$@"; fi
}

# The package would make and start a cluster of its own; the tests start their own server.
as_root mkdir -p /etc/postgresql-common/createcluster.d
echo "create_main_cluster = false" |
    as_root tee /etc/postgresql-common/createcluster.d/llm-backend-tests.conf >/dev/null

as_root env DEBIAN_FRONTEND=noninteractive apt-get update -q
as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql
