//! What is taken, what is refused, and what is never shown.

use std::io::Write;

use super::*;
use crate::registry_client::RegistryClient;

/// A file of its own for every test.
struct File(std::path::PathBuf);

impl File {
    fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("tapeline-{}-{name}", std::process::id()));
        let mut file = std::fs::File::create(&path).expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn load(file: Option<&File>, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    Config::load_with(file.map(|file| file.0.as_path()), environment)
}

fn refusal(file: Option<&File>, environment: &[(&str, &str)]) -> String {
    load(file, environment).expect_err("refused").to_string()
}

#[test]
fn defaults_are_allowed() {
    let config = load(None, &[]).expect("allowed");
    assert_eq!(config, Config::default());
    assert_eq!(config.store.batch_bytes, 16_777_216);
    assert_eq!(config.http.listen.as_deref(), Some("127.0.0.1:9100"));
}

#[test]
fn the_three_formats_say_the_same() {
    let toml = File::new(
        "same.toml",
        "[store]\nconnections = 3\n[kafka.properties]\n\"linger.ms\" = 5\n[connect.venues.kraken]\nsymbols = [\"XBT-USD\"]\n",
    );
    let json = File::new(
        "same.json",
        r#"{"store": {"connections": 3}, "kafka": {"properties": {"linger.ms": "5"}}, "connect": {"venues": {"KRAKEN": {"symbols": ["XBT-USD"]}}}}"#,
    );
    let yaml = File::new(
        "same.yaml",
        "store: {connections: 3}\nkafka: {properties: {linger.ms: 5}}\nconnect: {venues: {Kraken: {symbols: [XBT-USD]}}}\n",
    );
    let config = load(Some(&toml), &[]).expect("toml");
    assert_eq!(config, load(Some(&json), &[]).expect("json"));
    assert_eq!(config, load(Some(&yaml), &[]).expect("yaml"));
    assert_eq!(config.kafka.properties["linger.ms"], "5");
    assert!(config.connect.venues["KRAKEN"].enabled);
    assert_eq!(config.connect.venues["KRAKEN"].channels, ["trade", "ticker", "book"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_place_and_what_is_known() {
    let file = File::new("unknown.toml", "[kafka]\nbrokrs = \"a:1\"\n");
    let message = refusal(Some(&file), &[]);
    for part in ["unknown.toml", "kafka.brokrs", "`brokers`"] {
        assert!(message.contains(part), "{message}");
    }
    let message = refusal(None, &[("TAPELINE__STORE__CONECTIONS", "2")]);
    for part in ["TAPELINE__STORE__CONECTIONS", "store.conections", "`connections`"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(refusal(None, &[("TAPELINE__STOER__X", "2")]).contains("unknown field `stoer`"));
    assert!(refusal(None, &[("TAPELINE__STORE", "2")]).contains("TAPELINE__SECTION__KEY"));
}

#[test]
fn a_value_out_of_range_is_refused_with_the_range() {
    let file = File::new("range.yml", "store: {connections: 0, batch_rows: 0}\n");
    let message = refusal(Some(&file), &[]);
    assert!(message.contains("store.connections: 0 is not allowed, expected 1 to 16"), "{message}");
    assert!(message.contains("store.batch_rows: 0"), "{message}");
    let message = refusal(None, &[("TAPELINE__STORE__CONNECTIONS", "17")]);
    assert!(message.contains("expected 1 to 16 (from TAPELINE__STORE__CONNECTIONS)"), "{message}");
    assert!(refusal(None, &[("TAPELINE__STORE__CONNECTIONS", "-1")]).contains("store.connections"));
    assert!(refusal(None, &[("TAPELINE__BACKUP__USER", "a\nb")]).contains("backup.user"));
    assert!(refusal(None, &[("TAPELINE__STORE__CONNECTIONS", "two")]).contains("two"));
    let message = refusal(None, &[("TAPELINE__CONNECT__VENUES__KRAKEN__CHANNELS", "trade,candle")]);
    assert!(
        message.contains("trade, ticker, book, option, venue_candle, not 'candle'"),
        "{message}"
    );
    assert!(refusal(None, &[("TAPELINE__LOG__FORMAT", "xml")]).contains("`json`"));
}

#[test]
fn the_environment_goes_before_the_file_and_ours_before_the_common_one() {
    let file =
        File::new("over.toml", "[redis]\nurl = \"redis://file:1\"\n[log]\nlevel = \"warn\"\n");
    let common = ("REDIS_URL", "redis://common:1");
    assert_eq!(load(Some(&file), &[common]).expect("allowed").redis.url, "redis://common:1");
    let ours = ("TAPELINE__REDIS__URL", "redis://ours:1");
    let config = load(Some(&file), &[common, ours]).expect("allowed");
    assert_eq!((config.redis.url.as_str(), config.log.level.as_str()), ("redis://ours:1", "warn"));
}

#[test]
fn variables_are_read_as_their_keys_want_them() {
    let config = load(
        None,
        &[
            ("TAPELINE__KAFKA__BROKERS", "a:1,b:2"),
            ("TAPELINE__KAFKA__PARTITIONS", "6"),
            ("TAPELINE__KAFKA__PROPERTIES__SOCKET_TIMEOUT_MS", "1000"),
            ("TAPELINE__PIPELINE__ID", "7"),
            ("TAPELINE__GROUP__INSTANCE_ID", "0"),
            ("TAPELINE__HTTP__LISTEN", "none"),
            ("TAPELINE__CONNECT__VENUES__UPBIT__ENABLED", "false"),
            ("TAPELINE__CONNECT__VENUES__UPBIT__SYMBOLS", "BTC-KRW, ETH-KRW"),
            ("TAPELINE_RECORDINGS", "not a setting"),
        ],
    )
    .expect("allowed");
    assert_eq!(config.kafka.partitions, Some(6));
    assert_eq!(config.kafka.properties["socket.timeout.ms"], "1000");
    assert_eq!(config.pipeline.id, "7");
    assert_eq!(config.group.instance_id.as_deref(), Some("0"));
    assert_eq!(config.http.listen, None);
    let upbit = &config.connect.venues["UPBIT"];
    assert_eq!((upbit.enabled, upbit.symbols.len()), (false, 2));
}

#[test]
fn backups_are_refused_where_their_settings_cannot_be_meant() {
    let repository = |key: &str| format!("TAPELINE__BACKUP__REPOSITORY__{key}");
    for (variable, value, said) in [
        (repository("URL"), "ftp://h/backup", "file:// or s3://"),
        (repository("KEEP_FULL"), "0", "expected 1 to 1000"),
        (repository("PROPERTIES__RETENTION_FULL"), "9", "begins with s3- or storage-"),
        (repository("PROPERTIES__S3_KEY"), "a\nrepo1-path=/", "one line"),
        (repository("PASSPHRASE"), "a\nb", "one line"),
        ("TAPELINE__BACKUP__FOLDER".into(), "backup", "a path that begins with /"),
        ("TAPELINE__BACKUP__SECOND_REPOSITORY__URL".into(), "s3://b/c", "a first repository"),
        ("TAPELINE__BACKUP__SCHEDULE__FULL".into(), "at night", "as cron writes it"),
        ("TAPELINE__LIFECYCLE__SCHEDULE".into(), "none", "as cron writes it"),
    ] {
        let message = refusal(None, &[(variable.as_str(), value)]);
        assert!(message.contains(said), "{variable}: {message}");
    }
    let digits = "00012345678901234567890123";
    let key = repository("PROPERTIES__S3_KEY");
    let config = load(None, &[(key.as_str(), digits)]).expect("allowed");
    assert_eq!(config.backup.repository.properties["s3-key"], digits);
}

#[test]
fn timescale_variables_make_a_url() {
    let parts = [
        ("TIMESCALE_HOST", "pgbouncer-timescale"),
        ("TIMESCALE_PORT", "6432"),
        ("TIMESCALE_USER", "collector_user"),
        ("TIMESCALE_PASSWORD", "p@ss/word"),
        ("TIMESCALE_DB", "stockeasy_collector"),
    ];
    let expected =
        "postgres://collector_user:p%40ss%2Fword@pgbouncer-timescale:6432/stockeasy_collector";
    assert_eq!(load(None, &parts).expect("allowed").database.url, expected);
    let dsn = ("TIMESCALE_DSN", "postgresql://user:password@localhost:5432/timeseries");
    let config = load(None, &[dsn, parts[0]]).expect("allowed");
    assert_eq!(config.database.url, dsn.1);
}

#[test]
fn targets_and_certificates_that_are_not_whole_are_refused_by_key() {
    let url = ("TAPELINE__INFLUX__URL", "http://127.0.0.1:8086");
    let two = ("TAPELINE__INFLUX__VERSION", "2");
    let cases = [
        (&[url][..], "influx.database: expected a value, with influx.version 1"),
        (&[url, two], "influx.token: expected a value, with influx.version 2"),
        (&[url, ("TAPELINE__INFLUX__VERSION", "3")], "influx.version: 3 is not allowed"),
        (&[url, ("TAPELINE__INFLUX__USER", "writer")], "influx.password: expected one"),
        (&[("TAPELINE__INFLUX__URL", "http://u:hunter2@h:8086")], "influx.url: expected no user"),
        (
            &[("TAPELINE__REDIS__CA_FILE", "/ca.pem")],
            "redis.url: expected a url that begins with rediss://",
        ),
        (
            &[("TAPELINE__REDIS__URL", "rediss://h:1/0#insecure")],
            "redis.url: expected no #insecure",
        ),
    ];
    for (environment, text) in cases {
        let told = refusal(None, environment);
        assert!(told.contains(text) && !told.contains("hunter2"), "{told}");
    }
    let files = [
        ("TAPELINE__REDIS__URL", "rediss://h:1/0"),
        ("TAPELINE__REDIS__CA_FILE", "/nonexistent/ca.pem"),
        ("TAPELINE__REGISTRY__URL", "https://h:1"),
        ("TAPELINE__REGISTRY__CA_FILE", "/nonexistent/ca.pem"),
    ];
    let config = load(None, &files).expect("allowed");
    let redis = config.redis.client().expect_err("no such file");
    let registry = RegistryClient::configured(&config.registry).expect_err("no such file");
    for (told, key) in [(redis, "redis.ca_file"), (registry, "registry.ca_file")] {
        assert!(told.to_string().contains(&format!("{key}: /nonexistent/ca.pem")), "{told}");
    }
}

#[test]
fn secrets_are_neither_shown_nor_debugged_nor_part_of_errors() {
    let config = load(
        None,
        &[
            ("TAPELINE__DATABASE__URL", "postgres://u:hunter2@h:5432/d?sslpassword=hunter2&x=1"),
            ("TAPELINE__REDIS__URL", "redis://:hunt@er2:hunter2@h:6379"),
            ("TAPELINE__REGISTRY__URL", "http://key:hunter2@h:8081"),
            ("TAPELINE__KAFKA__PROPERTIES__SASL_PASSWORD", "hunter2"),
            ("TAPELINE__INFLUX__PASSWORD", "hunter2"),
            ("TAPELINE__INFLUX__USER", "writer"),
            ("TAPELINE__INFLUX__TOKEN", "hunter2"),
            ("TAPELINE__KAFKA__CONSUMER_PROPERTIES__SSL_KEY_PEM", "hunter2"),
            ("TAPELINE__BACKUP__REPOSITORY__PASSPHRASE", "hunter2"),
            ("TAPELINE__BACKUP__REPOSITORY__PROPERTIES__S3_KEY", "hunter2"),
            ("TAPELINE__BACKUP__REPOSITORY__PROPERTIES__S3_KEY_SECRET", "hunter2"),
            ("TAPELINE__BACKUP__REPOSITORY__PROPERTIES__S3_SSE_CUSTOMER_KEY", "hunter2"),
        ],
    )
    .expect("allowed");
    let line = File::new("secret.toml", "[database]\nurl = postgres://u:hunter2@h/d\n");
    let wrong = File::new("secret.json", r#"{"database": "postgres://u:hunter2@h/d"}"#);
    let shown = [
        refusal(Some(&line), &[]),
        refusal(Some(&wrong), &[]),
        config.redacted().to_string(),
        format!("{config:?}"),
        format!("{:?}", config.database),
        format!("{:?}", config.kafka),
        format!("{:?}", config.influx),
        format!("{:#?}", config.redis),
        format!("{:?}", config.backup.repository),
        refusal(None, &[("TAPELINE__DATABASE__URL", "mysql://u:hunter2@h/d")]),
    ];
    for text in &shown {
        assert!(!text.contains("hunter2") && !text.contains("er2:"), "{text}");
    }
    let shown = config.redacted();
    assert_eq!(shown["database"]["url"], "postgres://u:***@h:5432/d?sslpassword=***&x=1");
    assert_eq!(shown["kafka"]["properties"]["sasl.password"], "***");
    assert_eq!(shown["kafka"]["brokers"], "127.0.0.1:9092");
}

#[test]
fn files_that_cannot_be_read_say_so() {
    let other = File::new("config.ini", "x");
    assert!(refusal(Some(&other), &[]).contains("expected .toml, .json, .yaml or .yml"));
    let broken = File::new("broken.toml", "[store\n");
    assert!(refusal(Some(&broken), &[]).contains("broken.toml"));
    let list = File::new("list.json", "[]");
    assert!(refusal(Some(&list), &[]).contains("expected sections"));
    let missing = Config::load_with(Some(std::path::Path::new("/nonexistent/c.toml")), []);
    assert!(
        missing.expect_err("missing").to_string().contains("/nonexistent/c.toml: cannot be read")
    );
}
