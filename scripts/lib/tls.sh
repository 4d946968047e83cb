# shellcheck shell=bash
# TLS for Kafka, PostgreSQL and Redis with certificates of a CA of our own, and SCRAM users for Kafka: `up --tls`. A
# state directory is with TLS or without from its first `up` on; with it no service listens in plain text.

# who logs in to Kafka: `admin` makes topics, each stage has a user of its own; `broker` is the broker to itself
readonly KAFKA_USERS=(broker admin registry connect validate store cache candles influx)

tls_on() { [[ -f $STATE/tls/ca.pem ]]; }
tls_ca() { printf '%s/tls/ca.pem' "$STATE"; }

# tls_issue <service>: a key, and a certificate for the only address the service listens on.
tls_issue() {
    local name=$1
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$name" \
        -keyout "$name.key" -out "$name.csr" &&
        openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 825 -out "$name.crt" \
            -extfile <(printf 'subjectAltName=IP:127.0.0.1\n') &&
        rm "$name.csr"
}

# Made beside and moved into place: a directory that is there is a whole one.
tls_make() {
    local new=$STATE/tls.new
    ! tls_on || return 0
    if [[ -e $STATE/kafka/data || -e $STATE/postgres/data ]]; then
        die "$STATE has data of services without TLS: name another TAPELINE_SERVICES_DIR, or purge"
    fi
    command -v openssl >/dev/null || die "openssl is missing; run: sudo apt-get install openssl"
    rm -rf "$new"
    (
        umask 077
        mkdir -p "$new/kafka-users"
        cd "$new" || exit 1
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
            -subj "/CN=Tapeline development CA" -keyout ca.key -out ca.pem || exit 1
        for service in kafka postgres redis; do tls_issue "$service" || exit 1; done
        # Kafka reads key and certificate from one file
        cat kafka.key kafka.crt >kafka.pem
        for user in "${KAFKA_USERS[@]}"; do
            head -c 18 /dev/urandom | base64 | tr '+/' '-_' >"kafka-users/$user"
        done
    ) >"$(log_of tls)" 2>&1 || {
        show_log_tail tls
        die "the certificates could not be made"
    }
    mv "$new" "$STATE/tls"
    say "certificates and users are in $STATE/tls"
}

# tls_answers <port>: a handshake that ends with our own certificate.
tls_answers() {
    timeout 5 openssl s_client -connect "127.0.0.1:$1" -CAfile "$(tls_ca)" -verify_return_error \
        </dev/null >/dev/null 2>&1
}

# The settings of a Kafka user, one `NAME=value` a line.
tls_kafka_env() {
    cat <<END
TAPELINE__KAFKA__PROPERTIES__SECURITY_PROTOCOL=SASL_SSL
TAPELINE__KAFKA__PROPERTIES__SSL_CA_LOCATION=$(tls_ca)
TAPELINE__KAFKA__PROPERTIES__SASL_MECHANISM=SCRAM-SHA-512
TAPELINE__KAFKA__PROPERTIES__SASL_USERNAME=$1
TAPELINE__KAFKA__PROPERTIES__SASL_PASSWORD=$(<"$STATE/tls/kafka-users/$1")
END
}
