# shellcheck shell=bash
# Redis: a cache without persistence, in a process of its own beside whatever Redis the machine may run.

redis_port() { printf '%s' "$REDIS_PORT"; }

redis_url() {
    if tls_on; then printf rediss; else printf redis; fi
    printf '://127.0.0.1:%s/0' "$REDIS_PORT"
}

redis_ready() {
    local answer=''
    if tls_on; then
        answer=$(timeout 2 redis-cli --tls --cacert "$(tls_ca)" -p "$REDIS_PORT" ping 2>/dev/null)
        [[ $answer == PONG ]]
        return
    fi
    { exec 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 2 answer <&3 || true
    exec 3>&-
    [[ $answer == +PONG* ]]
}

redis_start() {
    refuse_taken_port redis "$REDIS_PORT" TAPELINE_REDIS_PORT
    local listen=(--port "$REDIS_PORT")
    if tls_on; then
        listen=(--port 0 --tls-port "$REDIS_PORT" --tls-auth-clients no --tls-ca-cert-file "$(tls_ca)"
            --tls-cert-file "$STATE/tls/redis.crt" --tls-key-file "$STATE/tls/redis.key")
    fi
    mkdir -p "$STATE/redis"
    # 512 databases let every test have one; nothing is saved because the log is what the cache is rebuilt from
    launch redis redis-server "${listen[@]}" --bind 127.0.0.1 --daemonize no --dir "$STATE/redis" \
        --save '' --appendonly no --databases 512 --maxmemory 1gb --maxmemory-policy noeviction
    wait_until_ready redis 20
}

redis_stop_signal() { printf TERM; }
