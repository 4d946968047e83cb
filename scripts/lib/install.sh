# shellcheck shell=bash
# Installs what is missing. Everything here looks first and needs root only when something has to be added.

# package=probe; the probe is what the package is wanted for, so that another source of it is accepted too
readonly PACKAGES=(
    build-essential=cmd:g++
    pkg-config=cmd:pkg-config
    cmake=cmd:cmake
    curl=cmd:curl
    ca-certificates=file:/etc/ssl/certs/ca-certificates.crt
    redis-server=cmd:redis-server
    pgbouncer=file:/usr/sbin/pgbouncer
    pgbackrest=cmd:pgbackrest
    kcat=cmd:kcat
    maven=cmd:mvn
    default-jre-headless=java:17
    # librdkafka and TimescaleDB are compiled against these
    libssl-dev=file:/usr/include/openssl/ssl.h
    libkrb5-dev=file:/usr/include/krb5.h
    libsasl2-dev=file:/usr/include/sasl/sasl.h
    libcurl4-openssl-dev=file:/usr/include/*/curl/curl.h
    zlib1g-dev=file:/usr/include/zlib.h
    python3-venv=file:/usr/lib/python3*/ensurepip/__init__.py
)

java_is_at_least() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
    [[ -n $version ]] && ((version >= $1))
}

probe() {
    local what=${1#*:}
    case $1 in
        cmd:*) command -v "$what" >/dev/null ;;
        file:*) compgen -G "$what" >/dev/null ;;
        java:*) command -v java >/dev/null && java_is_at_least "$what" ;;
    esac
}

# The major versions whose server is installed, newest first.
pg_majors() {
    local server
    for server in /usr/lib/postgresql/*/bin/postgres; do
        [[ ! -x $server ]] || basename "$(dirname "$(dirname "$server")")"
    done | sort -rn
}

pg_bindir() { printf '/usr/lib/postgresql/%s/bin' "$1"; }
pg_has_timescaledb() { [[ -f /usr/share/postgresql/$1/extension/timescaledb.control ]]; }

# Which PostgreSQL to use: the one our data was made with, else one that has TimescaleDB, else the newest installed.
pg_major() {
    local major majors
    if [[ -f $STATE/postgres/data/PG_VERSION ]]; then
        cat "$STATE/postgres/data/PG_VERSION"
        return
    fi
    majors=$(pg_majors)
    for major in $majors; do
        if pg_has_timescaledb "$major"; then
            printf '%s' "$major"
            return
        fi
    done
    [[ -n $majors ]] && head -n 1 <<<"$majors"
}

# The distribution's version, where no server is installed yet.
pg_major_of_distribution() {
    apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1
}

missing_packages() {
    local entry
    for entry in "${PACKAGES[@]}"; do
        probe "${entry#*=}" || printf '%s\n' "${entry%%=*}"
    done
    pg_major >/dev/null || printf 'postgresql\n'
}

missing_timescaledb() {
    local major
    major=$(pg_major) || return 0
    ! pg_has_timescaledb "$major"
}

# Installs without starting or enabling anything: the machine's own PostgreSQL and Redis are not ours to run.
apt_install() {
    local policy=/usr/sbin/policy-rc.d clusters=/etc/postgresql-common/createcluster.d result=0 new=() service
    for service in redis-server pgbouncer; do
        [[ -e /lib/systemd/system/$service.service ]] || new+=("$service.service")
    done
    say "installing: $*"
    # a subshell, so that its trap undoes both measures even when the install is interrupted
    (
        undo=("$clusters/tapeline.conf")
        trap 'rm -f "${undo[@]}"' EXIT
        if [[ ! -e $policy ]]; then
            undo+=("$policy")
            printf '#!/bin/sh\nexit 101\n' >"$policy"
            chmod 755 "$policy"
        fi
        # Debian makes a cluster 'main' with each new server version; this drop-in says no for the time of the install
        mkdir -p "$clusters"
        printf 'create_main_cluster = false\n' >"$clusters/tapeline.conf"
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$(log_of install)" 2>&1
    ) || result=$?
    if ((${#new[@]} > 0)) && command -v systemctl >/dev/null; then
        systemctl disable "${new[@]}" >>"$(log_of install)" 2>&1 || true
    fi
    ((result == 0)) || show_log_tail install
    return "$result"
}

install_packages() {
    local missing
    mapfile -t missing < <(missing_packages)
    ((${#missing[@]} > 0)) || return 0
    apt-get update -q -o DPkg::Lock::Timeout=300 >>"$(log_of install)" 2>&1 ||
        say "apt-get update failed; trying with the package lists at hand"
    local i major
    for i in "${!missing[@]}"; do
        [[ ${missing[i]} == postgresql ]] || continue
        # the metapackage only names the version; postgresql-common first, because it reads the drop-in
        major=$(pg_major_of_distribution)
        [[ -n $major ]] || die "apt knows no postgresql package"
        missing[i]=postgresql-$major
    done
    apt_install "${missing[@]}"
}

# --- TimescaleDB -----------------------------------------------------------------------------------------------

install_timescaledb() {
    missing_timescaledb || return 0
    local major package
    major=$(pg_major) || die "PostgreSQL's server is still missing after the install"
    package=postgresql-$major-timescaledb
    # not `grep -q`: it would close the pipe early and pipefail would call that a failure
    if apt-cache policy "$package" 2>/dev/null | grep 'Candidate: [0-9]' >/dev/null; then
        apt_install "$package"
    else
        build_timescaledb "$major"
    fi
}

# The Debian mirror this machine is set up for, so that nothing here names one.
debian_mirror() {
    if [[ -n ${TAPELINE_DEBIAN_MIRROR:-} ]]; then
        printf '%s' "$TAPELINE_DEBIAN_MIRROR"
        return
    fi
    apt-get indextargets --format "\$(ORIGIN)|\$(LABEL)|\$(REPO_URI)" 'Created-By: Packages' |
        sed -n 's/^Debian|Debian|//p' | sort -u | head -n 1
}

# apt checks signature and checksums; its directories are our own, so the machine's package lists stay as they are.
fetch_timescaledb_source() {
    local dir=$1 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    mirror=$(debian_mirror)
    [[ -n $mirror ]] || die "TimescaleDB is built from Debian's source package: set TAPELINE_DEBIAN_MIRROR to a Debian mirror"
    [[ -f $keyring ]] || apt_install debian-archive-keyring || return 1
    mkdir -p "$dir"/lists/partial "$dir"/cache/archives/partial
    printf 'deb-src [signed-by=%s] %s trixie main\n' "$keyring" "$mirror" >"$dir/sources.list"
    local options=(-q -o "Dir::Etc::SourceList=$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update && (cd "$dir" && apt-get "${options[@]}" source --download-only timescaledb)
}

build_timescaledb() {
    local major=$1 dir result=0
    [[ -f /usr/include/postgresql/$major/server/postgres.h ]] ||
        apt_install "postgresql-server-dev-$major" || return 1
    say "building TimescaleDB (Apache edition) for PostgreSQL $major: a few minutes"
    dir=$(mktemp -d)
    (
        set -e
        fetch_timescaledb_source "$dir"
        mkdir "$dir/source"
        tar -xf "$dir"/timescaledb_*.orig.tar.* -C "$dir/source" --strip-components=1
        cd "$dir/source"
        # the distribution's source holds the Apache edition only; its regression tests need a server of their own
        BUILD_FORCE_REMOVE=true ./bootstrap -DREGRESS_CHECKS=OFF -DAPACHE_ONLY=1 -DWARNINGS_AS_ERRORS=OFF \
            -DCMAKE_BUILD_TYPE=Release "-DPG_CONFIG=$(pg_bindir "$major")/pg_config"
        make -C build -j "$(nproc)"
        make -C build install
    ) >"$(log_of timescaledb-build)" 2>&1 </dev/null || result=$?
    rm -rf "$dir"
    ((result == 0)) || show_log_tail timescaledb-build
    return "$result"
}

# Brings everything in, or says what somebody with the right to do so should run.
ensure_installed() {
    local missing
    missing=$(missing_packages | tr '\n' ' ')
    if [[ -z $missing ]] && ! missing_timescaledb; then return 0; fi
    command -v apt-get >/dev/null || die "missing: ${missing}TimescaleDB; installing them needs Debian's or Ubuntu's apt"
    if ((EUID != 0)); then
        say "missing: ${missing}$(! missing_timescaledb || printf TimescaleDB)"
        die "run: sudo $SCRIPTS/services install"
    fi
    install_packages || die "the packages could not be installed"
    install_timescaledb || die "TimescaleDB could not be installed"
}
