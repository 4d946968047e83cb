# shellcheck shell=bash
# Kafka: Apache's broker in KRaft mode, one node that is broker and controller.

kafka_port() { printf '%s' "$KAFKA_PORT"; }

# Asks for the API versions in the protocol itself: a JVM tool would take longer than everything else in `up`.
kafka_answers() {
    local answer
    { exec 3<>"/dev/tcp/127.0.0.1/$KAFKA_PORT"; } 2>/dev/null || return 1
    # length 10, api 18 (ApiVersions), version 0, correlation id 1, no client id
    printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&3
    # the answer's length, the same correlation id, error code 0
    answer=$(timeout 5 head -c 10 <&3 | od -An -v -tx1 | tr -d ' \n')
    exec 3>&-
    [[ ${answer:8} == 000000010000 ]]
}

# The port answers a little before the broker takes part; the log says when it does.
kafka_ready() {
    grep -q 'Kafka Server started' "$(log_of kafka)" 2>/dev/null || return 1
    if tls_on; then tls_answers "$KAFKA_PORT"; else kafka_answers; fi
}

kafka_libs_present() {
    [[ -f $KAFKA_LIBS/.pom ]] && cmp -s "$KAFKA_LIBS/.pom" "$SCRIPTS/kafka-pom.xml"
}

# Fetched beside and moved into place, so an interrupted download is never taken for a broker.
kafka_fetch() {
    ! kafka_libs_present || return 0
    say "fetching the Kafka broker from Maven's repository"
    local new="$KAFKA_LIBS.new"
    rm -rf "$new"
    mvn -B -q -f "$SCRIPTS/kafka-pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$new" >"$(log_of kafka-fetch)" 2>&1 || {
        show_log_tail kafka-fetch
        return 1
    }
    cp "$SCRIPTS/kafka-pom.xml" "$new/.pom"
    rm -rf "$KAFKA_LIBS"
    mv "$new" "$KAFKA_LIBS"
}

kafka_listeners() {
    if ! tls_on; then
        cat <<END
listeners=PLAINTEXT://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=PLAINTEXT://127.0.0.1:$KAFKA_ADVERTISED_PORT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
END
        return
    fi
    cat <<END
listeners=SASL_SSL://127.0.0.1:$KAFKA_PORT,CONTROLLER://127.0.0.1:$KAFKA_CONTROLLER_PORT
advertised.listeners=SASL_SSL://127.0.0.1:$KAFKA_ADVERTISED_PORT
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:SSL
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=SCRAM-SHA-512
sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule \
  required username="broker" password="$(<"$STATE/tls/kafka-users/broker")";
listener.name.controller.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location=$STATE/tls/kafka.pem
ssl.truststore.type=PEM
ssl.truststore.location=$(tls_ca)
END
}

kafka_write_config() {
    mkdir -p "$STATE/kafka"
    write_file "$STATE/kafka/log4j2.properties" <<'END'
status = warn
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d] %p %m (%c)%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
# a line per partition and segment: thousands, once tests have made their topics
logger.log.name = kafka.log
logger.log.level = warn
logger.storage.name = org.apache.kafka.storage.internals
logger.storage.level = warn
logger.state.name = state.change.logger
logger.state.level = warn
END
    write_file "$STATE/kafka/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$KAFKA_CONTROLLER_PORT
$(kafka_listeners)
controller.listener.names=CONTROLLER
log.dirs=$STATE/kafka/data

# topics are made by the pipeline with settings of their own; a typing error must not make one
auto.create.topics.enable=false
delete.topic.enable=true
num.partitions=12
log.message.timestamp.type=LogAppendTime
# 8 MiB of payload and room for headers and batch
message.max.bytes=9437184
replica.fetch.max.bytes=9437184
# deleted topics give their disk back soon: tests make and drop many
log.segment.delete.delay.ms=5000

# one node: nothing can have three replicas, and few partitions start quickly
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4

# both group protocols, no wait for more members, and sessions short enough to test lost consumers
group.coordinator.rebalance.protocols=classic,consumer
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200

# a killed broker may register again only when its old session has ended; the default is 9 s
broker.session.timeout.ms=5000
broker.heartbeat.interval.ms=1000

# two cores, one gigabyte of heap
num.network.threads=2
num.io.threads=4
num.recovery.threads.per.data.dir=2
log.cleaner.dedupe.buffer.size=33554432
END
}

kafka_format() {
    [[ ! -f $STATE/kafka/data/meta.properties ]] || return 0
    local id user users=$STATE/kafka/scram-users with_users=()
    # 16 random bytes in URL-safe base64, as Kafka's own random-uuid makes them, without starting another JVM
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=' | sed 's/^-/A/')
    if tls_on; then
        # in a file that only we can read, and not as arguments, which others see
        (
            umask 077
            for user in "${KAFKA_USERS[@]}"; do
                printf -- '--add-scram\nSCRAM-SHA-512=[name=%s,password=%s]\n' \
                    "$user" "$(<"$STATE/tls/kafka-users/$user")"
            done >"$users"
        )
        with_users=("@$users")
    fi
    java -cp "$KAFKA_LIBS/*" "-Dlog4j2.configurationFile=$STATE/kafka/log4j2.properties" \
        kafka.tools.StorageTool format -t "$id" -c "$STATE/kafka/server.properties" "${with_users[@]}" \
        >"$(log_of kafka-format)" 2>&1 || {
        show_log_tail kafka-format
        return 1
    }
    rm -f "$users"
}

kafka_start() {
    refuse_taken_port kafka "$KAFKA_PORT" TAPELINE_KAFKA_PORT
    refuse_taken_port kafka "$KAFKA_CONTROLLER_PORT" TAPELINE_KAFKA_CONTROLLER_PORT
    # here and not in the install: the jars belong to this state directory, and never change under a running broker
    kafka_fetch || return 1
    # it holds the broker's own password, where it has one
    (umask 077 && kafka_write_config)
    kafka_format || return 1
    # more than half of the heap is for what is young: with a goal for pauses G1 shrinks that part until it collects twice a
    # second, with every core; touched at the start, since the first use of a page would be part of a pause
    launch kafka java -Xms1g -Xmx1g -Xmn600m -XX:+AlwaysPreTouch -XX:+UseParallelGC -XX:+ExitOnOutOfMemoryError \
        -Djava.awt.headless=true "-Dlog4j2.configurationFile=$STATE/kafka/log4j2.properties" \
        -cp "$KAFKA_LIBS/*" kafka.Kafka "$STATE/kafka/server.properties"
    wait_until_ready kafka 90
}

kafka_stop_signal() { printf TERM; }
