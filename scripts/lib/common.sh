# shellcheck shell=bash
# What every service needs: messages, starting a process that outlives the caller, finding it again, stopping it.

say() { printf '%s\n' "services: $*" >&2; }
die() {
    say "$*"
    exit 1
}

log_of() { printf '%s/log/%s.log' "$STATE" "$1"; }
pid_file_of() { printf '%s/run/%s.pid' "$STATE" "$1"; }

show_log_tail() {
    local log
    log=$(log_of "$1")
    [[ -s $log ]] || return 0
    say "last lines of $log:"
    tail -n "${2:-20}" "$log" | sed 's/^/    /' >&2
}

# A process is known by its pid, its start time and the boot it started in: a pid alone is given away again.
identity_of() {
    local stat boot
    read -r stat 2>/dev/null <"/proc/$1/stat" || return 1
    read -r boot </proc/sys/kernel/random/boot_id
    # the second field is the command in brackets and may hold blanks, so count from the last bracket
    stat=${stat##*) }
    # shellcheck disable=SC2086 # splitting into fields is the point
    set -- $1 $stat
    [[ $2 != Z ]] || return 1 # a zombie has ended; only its parent has not looked yet
    printf '%s %s %s' "$1" "${21}" "$boot"
}

# Prints the pid if the process that `launch` started is still that very process.
pid_of() {
    local recorded pid
    read -r recorded 2>/dev/null <"$(pid_file_of "$1")" || return 1
    pid=${recorded%% *}
    [[ -n $pid && $(identity_of "$pid") == "$recorded" ]] || return 1
    printf '%s' "$pid"
}

# launch <service> <command...>: in a session of its own, with no descriptor of the caller's left open. A daemon
# that held the caller's stdout would hang a CI job, one that held the lock's would block the next `up`.
launch() {
    local service=$1 log identity
    shift
    log=$(log_of "$service")
    [[ ! -s $log ]] || mv -f "$log" "$log.1"
    (
        cd /
        for fd in "/proc/$BASHPID/fd/"*; do
            fd=${fd##*/}
            if ((fd > 2 && fd != 255)); then eval "exec $fd>&-"; fi
        done
        exec setsid "$@" </dev/null >"$log" 2>&1
    ) &
    identity=$(identity_of "$!") || die "$service ended at once; see $log"
    printf '%s\n' "$identity" >"$(pid_file_of "$service")"
}

# wait_until_ready <service> <seconds>: polls `<service>_ready`, and gives up early when the process has ended.
wait_until_ready() {
    local service=$1 deadline=$((SECONDS + $2))
    until "${service}_ready"; do
        if ! pid_of "$service" >/dev/null; then
            say "$service ended while starting"
            show_log_tail "$service"
            return 1
        fi
        if ((SECONDS >= deadline)); then
            say "$service did not answer within $2 s"
            show_log_tail "$service"
            return 1
        fi
        sleep 0.1
    done
}

# signal <service> <name>: only ever to the process that was started here.
signal() {
    local pid
    pid=$(pid_of "$1") || return 1
    kill -s "$2" "$pid"
}

# wait_until_gone <service> <seconds>
wait_until_gone() {
    local deadline=$((SECONDS + $2))
    while pid_of "$1" >/dev/null; do
        if ((SECONDS >= deadline)); then
            say "$1 did not stop within $2 s: killing it"
            signal "$1" KILL || true
            deadline=$((SECONDS + 5))
        fi
        sleep 0.05
    done
    rm -f "$(pid_file_of "$1")"
}

port_answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

refuse_taken_port() {
    ! port_answers "$2" || die "port $2 for $1 is taken by a process that was not started here; free it or set $3"
}

# Names what a service needs, without leaving half a file behind when interrupted.
write_file() {
    cat >"$1.tmp"
    mv -f "$1.tmp" "$1"
}
