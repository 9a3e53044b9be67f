# shellcheck shell=bash disable=SC2154
# Guest: a PostgreSQL server in $mnt/data, on the disk under test. Sourced by kernel.sh. Knows how it is made, started and
# examined; which rows must be there, postgres.py knows.
versions=(/usr/lib/postgresql/*/bin)
bin=${versions[-1]}
data=$mnt/data

as_postgres() {
  runuser -u postgres -- "$@"
}

server_starts() {
  mkdir -p /run/pg
  chown postgres: /run/pg
  as_postgres "$bin/pg_ctl" -D "$data" -w -t 300 -l /run/pg/log \
    -o "-c unix_socket_directories=/run/pg -c listen_addresses= -c shared_buffers=32MB" start >/run/pg/start ||
    { cat /run/pg/start /run/pg/log; return 1; }
}

server_is_made() {
  mkdir "$data"
  chown postgres: "$data"
  as_postgres "$bin/initdb" -D "$data" --data-checksums --locale=C -E UTF8 -A trust --no-sync >/run/initdb ||
    { cat /run/initdb; return 1; }
  sync
  server_starts
  as_postgres "$bin/psql" -h /run/pg -qc 'CREATE TABLE kept (n bigint PRIMARY KEY, filler text)' postgres
  as_postgres "$bin/pgbench" -h /run/pg -i -q postgres 2>/run/pgbench
}

# Commits rows beside others' load, until the power is cut.
rows_are_committed() {
  as_postgres "$bin/pgbench" -h /run/pg -n -c 2 -T 3600 postgres >/run/load 2>&1 &
  /usr/bin/python3 "$GUEST/postgres.py" write "$bin/psql" "$OUT/$records.json"
}

# Recovers by itself; then every page, every index and the file system must be sound.
server_is_sound() {
  server_starts
  /usr/bin/python3 "$GUEST/postgres.py" check "$bin/psql" "$OUT/$records.json"
  as_postgres "$bin/psql" -h /run/pg -qc 'CREATE EXTENSION IF NOT EXISTS amcheck' postgres
  as_postgres "$bin/pg_amcheck" -h /run/pg --heapallindexed postgres
  as_postgres "$bin/pg_ctl" -D "$data" -w -t 300 -m fast stop >/run/pg/stop
  as_postgres "$bin/pg_checksums" --check -D "$data" >/run/pg/checksums || { cat /run/pg/checksums; return 1; }
  umount "$mnt"
  verify
}
