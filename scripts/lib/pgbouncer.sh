# shellcheck shell=bash
# PgBouncer in front of PostgreSQL (O5): every database in session mode, and `tapeline_read`, which is the database
# `tapeline` in transaction mode, for many readers on few connections.

pgbouncer_port() { printf '%s' "$PGBOUNCER_PORT"; }

pgbouncer_url() {
    printf 'postgres://tapeline:tapeline@127.0.0.1:%s/tapeline' "$PGBOUNCER_PORT"
    ! tls_on || printf '?sslmode=verify-full&sslrootcert=%s' "$(tls_ca)"
}

pgbouncer_ready() {
    local answer
    answer=$(PGCONNECT_TIMEOUT=2 psql -X -q -A -t -c 'select 1' "$(pgbouncer_url)" 2>/dev/null)
    [[ $answer == 1 ]]
}

# Beside the data, where the account that runs PostgreSQL can read it.
pgbouncer_dir() { printf '%s/pgbouncer' "$(realpath "$STATE/postgres")"; }

pgbouncer_write_config() {
    local dir password
    dir=$(pgbouncer_dir)
    as_pg_owner mkdir -p "$dir"
    password=$(cut -d : -f 5- "$STATE/postgres/pgpass")
    # only who asks for the verifiers of others needs a password here; clients bring their own
    (umask 077 && printf '"postgres" "%s"\n' "$password" | as_pg_owner tee "$dir/users.txt" >/dev/null)
    ! tls_on || as_pg_owner tee "$dir/ca.pem" <"$(tls_ca)" >/dev/null
    as_pg_owner tee "$dir/pgbouncer.ini" >/dev/null <<END
; written by scripts/services at every start
[databases]
tapeline_read = host=127.0.0.1 port=$POSTGRES_PORT dbname=tapeline pool_mode=transaction pool_size=20
* = host=127.0.0.1 port=$POSTGRES_PORT

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $PGBOUNCER_PORT
unix_socket_dir =
auth_type = scram-sha-256
auth_file = $dir/users.txt
auth_user = postgres
auth_query = select usename, passwd from pg_catalog.pg_shadow where usename = \$1
pool_mode = session
max_client_conn = 3000
default_pool_size = 100
; drivers set it at the start; the server's default is the same
ignore_startup_parameters = extra_float_digits
; after each transaction too: no prepared statement of one client is met by the next
server_reset_query = discard all
server_reset_query_always = 1
; a database that was left can be dropped soon
server_idle_timeout = 5
; who may ask the console for its figures (\`tapeline doctor\`)
stats_users = postgres, tapeline
$(pgbouncer_tls "$dir")
END
}

# The server's certificate is for the same address.
pgbouncer_tls() {
    tls_on || return 0
    cat <<END
client_tls_sslmode = require
client_tls_cert_file = $(pg_data)/server.crt
client_tls_key_file = $(pg_data)/server.key
server_tls_sslmode = verify-full
server_tls_ca_file = $1/ca.pem
END
}

pgbouncer_start() {
    local run=()
    refuse_taken_port pgbouncer "$PGBOUNCER_PORT" TAPELINE_PGBOUNCER_PORT
    [[ -f $STATE/postgres/pgpass ]] || die "pgbouncer needs postgres: scripts/services up postgres pgbouncer"
    pgbouncer_write_config
    ((EUID != 0)) || run=(setpriv --reuid=postgres --regid=postgres --init-groups --)
    launch pgbouncer "${run[@]}" /usr/sbin/pgbouncer "$(pgbouncer_dir)/pgbouncer.ini"
    wait_until_ready pgbouncer 20
}

# SIGINT waits for clients, SIGTERM does not.
pgbouncer_stop_signal() { printf TERM; }
