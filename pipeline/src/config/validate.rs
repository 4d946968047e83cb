//! What values are allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;

use tapeline_schemas::Kind;
use tracing_subscriber::EnvFilter;

use super::Config;
use crate::venue::CHANNELS;

const DAY_MS: u64 = 86_400_000;
/// Kafka's own limit for names of topics is 249, kinds and endings included.
const LONGEST_NAME: usize = 100;

#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn range<T: PartialOrd + Display>(&mut self, key: &str, value: T, allowed: RangeInclusive<T>) {
        if !allowed.contains(&value) {
            let (low, high) = allowed.into_inner();
            self.0.push(format!("{key}: {value} is not allowed, expected {low} to {high}"));
        }
    }

    fn require(&mut self, holds: bool, key: &str, expected: &str) {
        if !holds {
            self.0.push(format!("{key}: expected {expected}"));
        }
    }

    /// Of a connection, in seconds; 0 is no limit.
    fn age(&mut self, key: &str, seconds: u64) {
        let expected = format!("0, or 60 to 604800 s, not {seconds}");
        self.require(seconds == 0 || (60..=604_800).contains(&seconds), key, &expected);
    }

    /// Of a feed, in milliseconds; 0 is no limit.
    fn silence(&mut self, key: &str, millis: u64) {
        let expected = format!("0, or 1000 to {DAY_MS} ms, not {millis}");
        self.require(millis == 0 || (1_000..=DAY_MS).contains(&millis), key, &expected);
    }

    fn cron(&mut self, key: &str, when: &str) {
        let expected = "a time as cron writes it, such as `30 1 * * *`";
        self.require(crate::schedule::parse(when).is_ok(), key, expected);
    }

    /// Values are left out of the message: URLs hold passwords.
    fn url(&mut self, key: &str, url: &str, schemes: &[&str]) {
        let known = schemes.iter().any(|scheme| {
            url.strip_prefix(scheme)
                .and_then(|rest| rest.strip_prefix("://"))
                .is_some_and(|rest| !rest.is_empty())
        });
        let expected = format!("a url that begins with {}://", schemes.join(":// or "));
        self.require(known, key, &expected);
    }
}

impl Config {
    /// What is not allowed, each with its key and what would be.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Problems::default();
        self.check_services(&mut problems);
        self.check_stages(&mut problems);
        self.check_influx(&mut problems);
        self.check_connect(&mut problems);
        self.check_lifecycle(&mut problems);
        self.check_backup(&mut problems);
        problems.0
    }

    fn check_services(&self, problems: &mut Problems) {
        let kafka = &self.kafka;
        let brokers = kafka.brokers.split(',').all(|broker| is_address(broker.trim()));
        problems.require(brokers, "kafka.brokers", "host:port, several separated by commas");
        problems.require(is_name(&kafka.topic_prefix), "kafka.topic_prefix", NAME);
        if let Some(partitions) = kafka.partitions {
            problems.range("kafka.partitions", partitions, 1..=10_000);
        }
        problems.range("kafka.replication", kafka.replication, 1..=32);
        if let Some(url) = &self.registry.url {
            problems.url("registry.url", url, &["http", "https"]);
        }
        problems.range("registry.timeout_ms", self.registry.timeout_ms, 100..=60_000);
        problems.url("database.url", &self.database.url, &["postgres", "postgresql"]);
        if let Some(url) = &self.database.read_url {
            problems.url("database.read_url", url, &["postgres", "postgresql"]);
        }
        let database = &self.database;
        problems.range("database.compress_after_days", database.compress_after_days, 1..=36_500);
        let refresh = database.aggregate_refresh_minutes;
        problems.range("database.aggregate_refresh_minutes", refresh, 1..=10_080);
        problems.range("database.recent_days", database.recent_days, 1..=36_500);
        problems.range("database.pool_size", self.database.pool_size, 1..=1_000);
        problems.url("redis.url", &self.redis.url, &["redis", "rediss", "redis+unix", "unix"]);
        let redis = &self.redis;
        let tls = redis.url.starts_with("rediss://");
        let files = [&redis.ca_file, &redis.cert_file, &redis.key_file];
        let expected =
            "a url that begins with rediss://, as redis.ca_file or redis.cert_file is set";
        problems.require(tls || files.iter().all(|file| file.is_none()), "redis.url", expected);
        let pair = redis.cert_file.is_some() == redis.key_file.is_some();
        problems.require(pair, "redis.key_file", "one with redis.cert_file, and none without");
        let verified = !redis.url.ends_with("#insecure");
        problems.require(verified, "redis.url", "no #insecure: certificates are always verified");
        let id = &self.pipeline.id;
        problems.require(!id.is_empty() && is_name(id), "pipeline.id", NAME);
        if let Some(listen) = &self.http.listen {
            problems.require(is_address(listen), "http.listen", "host:port or none");
        }
        let level = EnvFilter::try_new(&self.log.level).is_ok();
        problems.require(level, "log.level", "error, warn, info, debug, trace, or directives");
        problems.range("group.session_timeout_ms", self.group.session_timeout_ms, 1_000..=300_000);
    }

    fn check_stages(&self, problems: &mut Problems) {
        let validate = &self.validate;
        problems.range("validate.max_ahead_ms", validate.max_ahead_ms, 0..=DAY_MS);
        problems.range("validate.max_behind_ms", validate.max_behind_ms, 0..=30 * DAY_MS);
        let ahead = validate.max_ahead_ms..=365 * DAY_MS;
        problems.range("validate.reject_ahead_ms", validate.reject_ahead_ms, ahead);
        problems.range("validate.price_jump_deviations", validate.price_jump_deviations, 1..=1_000);
        problems.range("validate.memory_per_symbol", validate.memory_per_symbol, 16..=1_000_000);
        problems.range("validate.linger_ms", validate.linger_ms, 0..=60_000);
        let store = &self.store;
        problems.range("store.connections", store.connections, 1..=16);
        problems.range("store.batch_rows", store.batch_rows, 1..=1_000_000);
        problems.range("store.batch_bytes", store.batch_bytes, 64 * 1024..=1024 * 1024 * 1024);
        problems.range("store.linger_ms", store.linger_ms, 0..=60_000);
        problems.range("store.takeover_ms", store.takeover_ms, 100..=600_000);
        problems.range("cache.linger_ms", self.cache.linger_ms, 0..=60_000);
        problems.range("cache.batch_events", self.cache.batch_events, 1..=100_000);
        let lateness = self.candles.allowed_lateness_ms;
        problems.range("candles.allowed_lateness_ms", lateness, 0..=DAY_MS);
        problems.range("candles.linger_ms", self.candles.linger_ms, 0..=60_000);
    }

    fn check_influx(&self, problems: &mut Problems) {
        let influx = &self.influx;
        problems.range("influx.version", influx.version, 1..=2);
        problems.range("influx.batch_lines", influx.batch_lines, 1..=100_000);
        problems.range("influx.batch_bytes", influx.batch_bytes, 64 * 1024..=64 * 1024 * 1024);
        problems.range("influx.linger_ms", influx.linger_ms, 0..=60_000);
        problems.range("influx.timeout_ms", influx.timeout_ms, 100..=600_000);
        let Some(url) = &influx.url else { return };
        problems.url("influx.url", url, &["http", "https"]);
        let login = "no user in it: that is influx.user and influx.password, or influx.token";
        problems.require(!url.contains('@'), "influx.url", login);
        let needed = match influx.version {
            1 => vec![("influx.database", &influx.database)],
            _ => vec![
                ("influx.org", &influx.org),
                ("influx.bucket", &influx.bucket),
                ("influx.token", &influx.token),
            ],
        };
        for (key, value) in needed {
            let expected = format!("a value, with influx.version {}", influx.version);
            problems.require(value.is_some(), key, &expected);
        }
        let password = influx.user.is_some() == influx.password.is_some();
        problems.require(password, "influx.password", "one with influx.user, and none without");
    }

    fn check_lifecycle(&self, problems: &mut Problems) {
        if let Some(url) = &self.archive.url {
            problems.url("archive.url", url, &["s3", "s3a", "gs", "az", "abfs", "abfss", "file"]);
        }
        let lifecycle = &self.lifecycle;
        let kept = lifecycle.keep_restored_days;
        problems.range("lifecycle.keep_restored_days", kept, 0..=3_650);
        problems.cron("lifecycle.schedule", &lifecycle.schedule);
        let own = lifecycle.kinds.iter().map(|(kind, periods)| (format!("kinds.{kind}"), periods));
        for (name, periods) in
            std::iter::once(("periods".to_owned(), &lifecycle.periods)).chain(own)
        {
            let key = |field: &str| format!("lifecycle.{name}.{field}");
            let days = 1..=36_500;
            problems.range(&key("compact_after_days"), periods.compact_after_days, days.clone());
            problems.range(&key("compress_after_days"), periods.compress_after_days, days.clone());
            problems.range(&key("archive_after_days"), periods.archive_after_days, days.clone());
            let drop = periods.archive_after_days..=36_500;
            problems.range(&key("drop_after_days"), periods.drop_after_days, drop);
        }
        for kind in lifecycle.kinds.keys() {
            let known = crate::archive::archived_kinds().any(|(known, _)| known.name() == kind);
            let names: Vec<_> =
                crate::archive::archived_kinds().map(|(kind, _)| kind.name()).collect();
            problems.require(
                known,
                &format!("lifecycle.kinds.{kind}"),
                &format!("one of {}", names.join(", ")),
            );
        }
    }

    fn check_backup(&self, problems: &mut Problems) {
        let backup = &self.backup;
        let name = !backup.stanza.is_empty() && is_name(&backup.stanza);
        problems.require(name, "backup.stanza", NAME);
        let user = !backup.user.is_empty() && !backup.user.contains(char::is_control);
        problems.require(user, "backup.user", "a user of the database");
        problems.range("backup.port", backup.port, 1..=u16::MAX);
        problems.range("backup.processes", backup.processes, 1..=64);
        let paths = [("socket", Some(&backup.socket)), ("folder", Some(&backup.folder))]
            .into_iter()
            .chain([("data", backup.data.as_ref()), ("programs", backup.programs.as_ref())]);
        for (key, path) in paths.filter_map(|(key, path)| path.map(|path| (key, path))) {
            let is_path = path.starts_with('/') && !path.contains(char::is_control);
            problems.require(is_path, &format!("backup.{key}"), "a path that begins with /");
        }
        for (section, repository) in
            [("repository", &backup.repository), ("second_repository", &backup.second_repository)]
        {
            let key = |field: &str| format!("backup.{section}.{field}");
            if let Some(url) = &repository.url {
                problems.url(&key("url"), url, &["file", "s3"]);
            }
            problems.range(&key("keep_full"), repository.keep_full, 1..=1_000);
            for (name, value) in &repository.properties {
                let ours = ["path", "type", "cipher", "retention", "s3-bucket"];
                let known = ["s3-", "storage-"].iter().any(|start| name.starts_with(start));
                let good = known && !ours.iter().any(|start| name.starts_with(start));
                let expected = "a setting of pgbackrest that begins with s3- or storage-";
                problems.require(good, &key(&format!("properties.{name}")), expected);
                let plain = !value.contains(char::is_control);
                problems.require(plain, &key(&format!("properties.{name}")), "one line");
            }
            problems.require(
                !repository.passphrase.contains(char::is_control),
                &key("passphrase"),
                "one line",
            );
        }
        problems.require(
            backup.second_repository.url.is_none() || backup.repository.url.is_some(),
            "backup.repository.url",
            "a first repository where there is a second one",
        );
        let schedule = &backup.schedule;
        for (key, when) in [
            ("backup.schedule.full", &schedule.full),
            ("backup.schedule.differential", &schedule.differential),
            ("backup.schedule.incremental", &schedule.incremental),
            ("backup.schedule.restore_test", &schedule.restore_test),
        ] {
            when.iter().for_each(|when| problems.cron(key, when));
        }
    }

    fn check_connect(&self, problems: &mut Problems) {
        let connect = &self.connect;
        problems.range("connect.book_depth", connect.book_depth, 1..=1_000);
        problems.range("connect.book_interval_ms", connect.book_interval_ms, 10..=3_600_000);
        let complete = connect.complete_interval_ms;
        problems.range("connect.complete_interval_ms", complete, 10..=60_000);
        problems.require(is_name(&connect.instance), "connect.instance", NAME);
        // It names a directory, too.
        let elsewhere = matches!(connect.instance.as_str(), "." | "..");
        problems.require(!elsewhere, "connect.instance", "more than dots");
        problems.range("connect.lease_ms", connect.lease_ms, 500..=60_000);
        if let Some(proxy) = &connect.proxy {
            problems.url("connect.proxy", proxy, &["http", "socks5", "socks5h"]);
        }
        problems.age("connect.max_connection_age_s", connect.max_connection_age_s);
        problems.silence("connect.stale_after_ms", connect.stale_after_ms);
        let record = &connect.record;
        problems.require(!record.dir.is_empty(), "connect.record.dir", "a directory");
        problems.range("connect.record.file_mb", record.file_mb, 1..=4_096);
        problems.range("connect.record.max_mb", record.max_mb, record.file_mb..=100_000_000);
        problems.range("connect.record.keep_hours", record.keep_hours, 1..=876_000);
        for (name, venue) in &connect.venues {
            let key = |field: &str| format!("connect.venues.{name}.{field}");
            problems.age(&key("max_connection_age_s"), venue.max_connection_age_s.unwrap_or(0));
            problems.silence(&key("stale_after_ms"), venue.stale_after_ms.unwrap_or(0));
            for channel in &venue.channels {
                let names = CHANNELS.map(Kind::name);
                let expected = format!("{}, not '{channel}'", names.join(", "));
                problems.require(names.contains(&channel.as_str()), &key("channels"), &expected);
            }
            for symbol in &venue.symbols {
                let pair =
                    symbol.split_once('-').is_some_and(|(b, q)| !b.is_empty() && !q.is_empty());
                let expected = format!("symbols as BASE-QUOTE, not '{symbol}'");
                problems.require(pair, &key("symbols"), &expected);
            }
            if let Some(url) = &venue.ws_url {
                problems.url(&key("ws_url"), url, &["ws", "wss"]);
            }
            if let Some(url) = &venue.rest_url {
                problems.url(&key("rest_url"), url, &["http", "https"]);
            }
        }
    }
}

const NAME: &str = "letters, digits, '.', '_' and '-', at most 100 of them";

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    text.len() <= LONGEST_NAME && text.chars().all(allowed)
}

fn is_address(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
}
