# shellcheck shell=bash
# InfluxDB, a second target: started only where it is asked for by name.

influxdb_port() { printf '%s' "$INFLUXDB_PORT"; }

influxdb_ready() { curl --noproxy '*' -fsS -m 2 -o /dev/null "http://127.0.0.1:$INFLUXDB_PORT/ping" 2>/dev/null; }

influxdb_install() {
    ! command -v influxd >/dev/null || return 0
    ((EUID == 0)) || die "missing: influxdb; run: sudo $SCRIPTS/services install"
    apt_install influxdb || die "influxdb could not be installed"
    if command -v systemctl >/dev/null; then
        systemctl disable influxdb.service >>"$(log_of install)" 2>&1 || true
    fi
}

influxdb_write_config() {
    mkdir -p "$STATE/influxdb"
    write_file "$STATE/influxdb/influxdb.conf" <<END
reporting-disabled = true
# backups, which need no port of their own here
bind-address = "127.0.0.1:0"

[meta]
dir = "$STATE/influxdb/meta"

[data]
dir = "$STATE/influxdb/data"
wal-dir = "$STATE/influxdb/wal"
index-version = "tsi1"

[http]
bind-address = "127.0.0.1:$INFLUXDB_PORT"
log-enabled = false
# small, so that a batch has to be taken in parts
max-body-size = 262144

[monitor]
store-enabled = false
END
}

influxdb_start() {
    refuse_taken_port influxdb "$INFLUXDB_PORT" TAPELINE_INFLUXDB_PORT
    influxdb_write_config
    launch influxdb influxd run -config "$STATE/influxdb/influxdb.conf"
    wait_until_ready influxdb 30
}

influxdb_stop_signal() { printf TERM; }
