# shellcheck shell=bash
# PostgreSQL with TimescaleDB: a cluster of our own, apart from any the distribution manages.

readonly PG_TEMPLATE=tapeline_template

postgres_port() { printf '%s' "$POSTGRES_PORT"; }

# PostgreSQL refuses to run as root, so root hands over to the account its package made.
as_pg_owner() {
    if ((EUID == 0)); then
        setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
    else
        "$@"
    fi
}

pg_url() {
    printf 'postgres://tapeline:tapeline@127.0.0.1:%s/tapeline' "$POSTGRES_PORT"
    ! tls_on || printf '?sslmode=verify-full&sslrootcert=%s' "$(tls_ca)"
}

pg_admin() {
    local tls=()
    ! tls_on || tls=(PGSSLMODE=verify-full "PGSSLROOTCERT=$(tls_ca)")
    env PGPASSFILE="$STATE/postgres/pgpass" PGOPTIONS='-c client_min_messages=warning' "${tls[@]}" \
        psql -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$POSTGRES_PORT" -U postgres "$@"
}

# Both: the server takes connections, and it answers a query.
pg_accepts() {
    pg_isready -q -h 127.0.0.1 -p "$POSTGRES_PORT" -t 2 && pg_admin -d postgres -c 'select 1' >/dev/null 2>&1
}

# What others rely on: our role, our database, its extension.
postgres_ready() {
    local found
    found=$(PGCONNECT_TIMEOUT=2 psql -X -q -A -t "$(pg_url)" \
        -c "select extname from pg_extension where extname = 'timescaledb'" 2>/dev/null)
    [[ $found == timescaledb ]]
}

# The data directory must be reachable for the account that runs the server, which root's home is not. Then the data
# goes to /var/lib, and .services/postgres is a link to it.
pg_place_data() {
    local place
    [[ ! -L $STATE/postgres ]] || return 0
    mkdir -p "$STATE/postgres"
    if ((EUID == 0)) && ! as_pg_owner test -x "$STATE/postgres"; then
        place=/var/lib/tapeline/$(printf '%s' "$STATE" | cksum | cut -d ' ' -f 1)
        mkdir -p "$place"
        chmod 755 /var/lib/tapeline "$place"
        rmdir "$STATE/postgres"
        ln -s "$place" "$STATE/postgres"
    fi
    ((EUID != 0)) || chown postgres: "$STATE/postgres/"
}

pg_data() { printf '%s/data' "$(realpath "$STATE/postgres")"; }

# Made beside and moved into place: a data directory that is there is a whole one.
pg_init() {
    local data new password secret
    data=$(pg_data)
    [[ ! -f $data/PG_VERSION ]] || return 0
    new=$data.new
    secret=$(dirname "$data")/password
    as_pg_owner rm -rf "$new"
    password=$(head -c 18 /dev/urandom | base64 | tr '+/' '-_')
    (umask 077 && printf '127.0.0.1:*:*:postgres:%s\n' "$password" >"$STATE/postgres/pgpass")
    # a file only its owner can read, not an argument: command lines can be read by others
    (umask 077 && printf '%s\n' "$password" | as_pg_owner tee "$secret" >/dev/null)
    (cd / && as_pg_owner "$(pg_bindir "$1")/initdb" -D "$new" -U postgres --pwfile="$secret" \
        -A scram-sha-256 -E UTF8 --locale=C.UTF-8 --data-checksums) >"$(log_of initdb)" 2>&1 </dev/null || {
        rm -f "$secret"
        show_log_tail initdb
        return 1
    }
    rm -f "$secret"
    mv "$new" "$data"
}

# Where its socket is, for the account that runs it; none where the name would be too long for one.
pg_socket_dir() {
    local dir
    dir=$(dirname "$(pg_data)")
    ((${#dir} > 80)) || printf '%s' "$dir"
}

# What `alter system` sets comes over this and stays.
# Sized for a machine shared with the broker and the pipeline. A day's rows that are read in the order of an index
# (the archive's) are all over the day's pages: where its buffers hold them, each page is checked and copied once.
pg_write_config() {
    local data host=host memory_mib
    data=$(pg_data)
    memory_mib=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo)
    if tls_on; then
        host=hostssl
        as_pg_owner tee "$data/server.crt" <"$STATE/tls/postgres.crt" >/dev/null
        (umask 077 && as_pg_owner tee "$data/server.key" <"$STATE/tls/postgres.key" >/dev/null)
    fi
    # earlier versions of this script wrote that file
    if grep -q 'written by scripts/services' "$data/postgresql.auto.conf"; then
        as_pg_owner truncate -s 0 "$data/postgresql.auto.conf"
    fi
    as_pg_owner tee "$data/pg_hba.conf" >/dev/null <<END
$host all all 127.0.0.1/32 scram-sha-256
local all postgres peer map=owner
END
    as_pg_owner tee "$data/pg_ident.conf" <<<"owner $(as_pg_owner id -un) postgres" >/dev/null
    as_pg_owner tee "$data/postgresql.conf" >/dev/null <<END
# written by scripts/services at every start
listen_addresses = '127.0.0.1'
port = $POSTGRES_PORT
ssl = $(if tls_on; then printf on; else printf off; fi)
unix_socket_directories = '$(pg_socket_dir)'
shared_preload_libraries = 'timescaledb,pg_stat_statements'
timescaledb.telemetry_level = 'off'
# each database with the extension wants a worker for its scheduler, and tests make many databases
timescaledb.max_background_workers = 64
max_worker_processes = 96
max_connections = 300
max_locks_per_transaction = 512
shared_buffers = '$((memory_mib / 6))MB'
effective_cache_size = '$((memory_mib / 2))MB'
maintenance_work_mem = '256MB'
work_mem = '16MB'
random_page_cost = 1.1
jit = off
fsync = on
synchronous_commit = on
wal_compression = 'lz4'
max_wal_size = '8GB'
min_wal_size = '1GB'
checkpoint_timeout = '15min'
log_line_prefix = '%m [%p] %q%u@%d '
log_lock_waits = on
timezone = 'UTC'
log_timezone = 'UTC'
END
}

# TimescaleDB may be created by a superuser only, so databases for tests are copied from a template that has it. A
# template of its own, closed to connections: neither a session nor a background worker can ever block the copying.
pg_bootstrap() {
    pg_admin -d postgres -f - <<END || return 1
do \$\$ begin
    if not exists (select from pg_roles where rolname = 'tapeline') then
        create role tapeline login createdb password 'tapeline';
    end if;
end \$\$;
-- an autovacuum worker belongs to no role, and without this \`drop database … with (force)\` is refused beside one
grant pg_signal_backend to tapeline;
select 'create database $PG_TEMPLATE'
    where not exists (select from pg_database where datname = '$PG_TEMPLATE') \gexec
END
    local open
    open=$(pg_admin -A -t -d postgres -c "select datallowconn from pg_database where datname = '$PG_TEMPLATE'")
    if [[ $open == t ]]; then
        pg_admin -d "$PG_TEMPLATE" -c 'create extension if not exists timescaledb' \
            -c 'create extension if not exists pg_stat_statements' || return 1
        pg_admin -d postgres -c "alter database $PG_TEMPLATE with is_template true allow_connections false" || return 1
    fi
    pg_close_template || return 1
    pg_admin -d postgres -f - <<END
select 'create database tapeline owner tapeline template $PG_TEMPLATE'
    where not exists (select from pg_database where datname = 'tapeline') \gexec
END
}

# The extension's scheduler may have connected before the door was shut, and stays until it is sent away.
pg_close_template() {
    local deadline=$((SECONDS + 30)) left
    until left=$(pg_admin -A -t -d postgres -c "select count(pg_terminate_backend(pid))
        from pg_stat_activity where datname = '$PG_TEMPLATE'") && [[ $left == 0 ]]; do
        ((SECONDS < deadline)) || return 1
        sleep 0.1
    done
}

pg_launch() {
    local run=()
    # PostgreSQL itself, not pg_ctl: the process started is then the one whose pid is kept
    ((EUID != 0)) || run=(setpriv --reuid=postgres --regid=postgres --init-groups --)
    launch postgres env LC_ALL=C.UTF-8 "${run[@]}" "$(pg_bindir "$1")/postgres" -D "$(pg_data)"
}

# After a crash the dead server keeps its pid until it is reaped, and its children the shared memory for a moment;
# PostgreSQL rightly refuses to start beside them, and nothing but time helps.
pg_was_refused_for_now() {
    grep -qE 'pre-existing shared memory|lock file "postmaster.pid" already exists' "$(log_of postgres)"
}

pg_launch_until_accepting() {
    local deadline=$((SECONDS + 60))
    pg_launch "$1"
    until pg_accepts; do
        if ! pid_of postgres >/dev/null; then
            if ! pg_was_refused_for_now || ((SECONDS >= deadline)); then
                say "postgres ended while starting"
                show_log_tail postgres
                return 1
            fi
            sleep 0.3
            # a refusal is no log worth keeping; the crashed server's is
            : >"$(log_of postgres)"
            pg_launch "$1"
        fi
        if ((SECONDS >= deadline)); then
            say "postgres did not answer within 60 s"
            show_log_tail postgres
            return 1
        fi
        sleep 0.1
    done
}

postgres_start() {
    local major
    major=$(pg_major) || die "no PostgreSQL server found"
    refuse_taken_port postgres "$POSTGRES_PORT" TAPELINE_POSTGRES_PORT
    pg_place_data
    pg_init "$major" || return 1
    pg_write_config
    pg_launch_until_accepting "$major" || return 1
    pg_bootstrap || return 1
    wait_until_ready postgres 20
}

# SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
postgres_stop_signal() { printf INT; }
