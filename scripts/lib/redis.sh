# shellcheck shell=bash
# Redis: a cache without persistence, in a process of its own beside whatever Redis the machine may run.

redis_port() { printf '%s' "$REDIS_PORT"; }

redis_ready() {
    local answer=''
    { exec 3<>"/dev/tcp/127.0.0.1/$REDIS_PORT"; } 2>/dev/null || return 1
    printf 'PING\r\n' >&3
    IFS= read -r -t 2 answer <&3 || true
    exec 3>&-
    [[ $answer == +PONG* ]]
}

redis_start() {
    refuse_taken_port redis "$REDIS_PORT" TAPELINE_REDIS_PORT
    mkdir -p "$STATE/redis"
    # 512 databases let every test have one; nothing is saved because the log is what the cache is rebuilt from
    launch redis redis-server --port "$REDIS_PORT" --bind 127.0.0.1 --daemonize no --dir "$STATE/redis" \
        --save '' --appendonly no --databases 512 --maxmemory 1gb --maxmemory-policy noeviction
    wait_until_ready redis 20
}

redis_stop_signal() { printf TERM; }
