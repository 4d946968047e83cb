//! What to do about a connection that TLS refused.

use redis::{Client, ConnectionAddr, RedisError};

/// Parts of the texts of rustls, sqlx, OpenSSL and librdkafka, and what to do about each.
const ADVICE: [(&str, &str); 14] = [
    ("UnknownIssuer", UNTRUSTED),
    ("CaUsedAsEndEntity", UNTRUSTED),
    ("certificate: Expired", EXPIRED),
    ("certificate expired", EXPIRED),
    ("certificate has expired", EXPIRED),
    ("not valid for name", OTHER_NAME),
    ("NotValidForName", OTHER_NAME),
    // OpenSSL does not say which of them it is.
    (
        "certificate verify failed",
        "its certificate is not trusted, has expired or is for another host name: check \
         ssl.ca.location, the certificate's dates, and the names in kafka.brokers",
    ),
    ("does not support TLS", PLAIN),
    ("corrupt message", PLAIN),
    ("SSL routines::", PLAIN),
    ("PLAINTEXT broker listener?", PLAIN),
    (
        CLOSED_AT_ONCE,
        "it may want TLS: set security.protocol in kafka.properties to SASL_SSL or SSL",
    ),
    ("SASL authentication error", "check sasl.username and sasl.password in kafka.properties"),
];

/// In librdkafka's note of a connection that its broker closed before a word of its own.
pub const CLOSED_AT_ONCE: &str = "in state APIVERSION_QUERY";

const UNTRUSTED: &str = "its certificate is of a CA that is not trusted: name the CA's file (sslrootcert in the \
     database's URL, redis.ca_file, registry.ca_file, influx.ca_file)";
const EXPIRED: &str = "its certificate has expired: renew it";
const OTHER_NAME: &str =
    "its certificate is for another host name: connect by a name that it has, or give it this one";
const PLAIN: &str = "it does not speak TLS there, and nothing is sent in plain text: check the \
     address, and that the server has TLS on";

/// What to do about a refusal, by the error's text; none where TLS or login is not at fault.
pub fn advice(error: &str) -> Option<&'static str> {
    ADVICE.iter().find(|(part, _)| error.contains(part)).map(|(_, advice)| *advice)
}

/// The text of Redis' refusal of a connection, with what to do about it.
pub fn redis_refusal(client: &Client, error: &RedisError) -> String {
    let is_tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    if is_tls && error.is_timeout() {
        // Redis without TLS takes the handshake for a command whose line has not ended yet.
        return format!("{error}; if the server is up, {PLAIN}");
    }
    if !is_tls && error.is_connection_dropped() && !error.is_connection_refusal() {
        return format!("{error}; it may want TLS: then redis.url begins with rediss://");
    }
    advised(error.to_string())
}

/// The error with what to do about it.
pub fn advised(error: String) -> String {
    match advice(&error) {
        Some(advice) => format!("{error}; {advice}"),
        None => error,
    }
}
