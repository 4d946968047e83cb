# shellcheck shell=bash
# The schema registry: the pipeline's own binary, once it has been built.

registry_port() { printf '%s' "$REGISTRY_PORT"; }

registry_binary() {
    local binary=${TAPELINE_BIN:-$REPO/target/release/tapeline}
    [[ -x $binary && ! -d $binary ]] || return 1
    # the service starts in / so that it holds no directory of the caller's
    realpath "$binary"
}

registry_ready() {
    curl --noproxy '*' -fsS -m 2 -o /dev/null "http://127.0.0.1:$REGISTRY_PORT/subjects" 2>/dev/null
}

registry_start() {
    local binary
    binary=$(registry_binary) || {
        say "no tapeline binary yet: the registry will be started by the next 'up' after the build"
        return 0
    }
    refuse_taken_port registry "$REGISTRY_PORT" TAPELINE_REGISTRY_PORT
    local tls=()
    ! tls_on || mapfile -t tls < <(tls_kafka_env registry)
    launch registry env "TAPELINE__KAFKA__BROKERS=127.0.0.1:$KAFKA_PORT" "${tls[@]}" \
        "$binary" registry --listen "127.0.0.1:$REGISTRY_PORT"
    wait_until_ready registry 30
}

registry_stop_signal() { printf TERM; }
