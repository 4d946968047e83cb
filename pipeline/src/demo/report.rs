//! What became of everything, per venue and kind.

use std::collections::BTreeMap;

use anyhow::Result;
use rdkafka::Message;
use rdkafka::message::Headers as _;
use serde::Serialize;
use sqlx::{Connection, PgConnection, Row};
use tapeline_schemas::{Flag, Flags, Kind, Quarantine, Record, headers, wire};

use super::latency::{self, Latency};
use crate::audit;
use crate::kafka::scan;
use crate::venue::StatsReport;
use crate::wiring::{Context, STORED_KINDS};

/// Counts of one kind of one venue.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Counts {
    received: u64,
    published: u64,
    checked: u64,
    flagged: u64,
    quarantined: u64,
    duplicates: u64,
    stored: u64,
}

/// Books of one venue.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Books {
    updates_applied: u64,
    checksums_verified: u64,
    checksums_failed: u64,
    resyncs: u64,
}

#[derive(Debug, Default, Serialize)]
struct Verdict {
    raw_offsets: i64,
    accounted: i64,
    ok: bool,
}

/// The report.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    venues: BTreeMap<String, BTreeMap<&'static str, Counts>>,
    books: BTreeMap<String, Books>,
    candles: BTreeMap<String, i64>,
    latency_ms: Latency,
    audit: Verdict,
    #[serde(skip)]
    wrong: Vec<String>,
}

impl Report {
    /// Whether every raw offset is accounted for.
    pub(super) fn ok(&self) -> bool {
        self.audit.ok
    }

    fn counts(&mut self, venue: &str, kind: Kind) -> &mut Counts {
        self.venues.entry(venue.to_owned()).or_default().entry(kind.name()).or_default()
    }

    /// Prints it for people.
    pub(super) fn print(&self) {
        println!(
            "{:<10} {:<12} {:>9} {:>9} {:>9} {:>9} {:>11} {:>10} {:>9}",
            "venue",
            "kind",
            "received",
            "published",
            "checked",
            "flagged",
            "quarantined",
            "duplicates",
            "stored"
        );
        for (venue, kinds) in &self.venues {
            for (kind, c) in kinds {
                println!(
                    "{venue:<10} {kind:<12} {:>9} {:>9} {:>9} {:>9} {:>11} {:>10} {:>9}",
                    c.received,
                    c.published,
                    c.checked,
                    c.flagged,
                    c.quarantined,
                    c.duplicates,
                    c.stored
                );
            }
        }
        println!("\nbooks: what is stored are the periodic snapshots of the verified books");
        for (venue, books) in &self.books {
            println!(
                "{venue:<10} updates applied {}, checksums verified {}, failed {}, resyncs {}",
                books.updates_applied,
                books.checksums_verified,
                books.checksums_failed,
                books.resyncs
            );
        }
        let candles: Vec<_> = self.candles.iter().map(|(f, n)| format!("{f} {n}")).collect();
        println!("\ncandles: {}", candles.join(", "));
        println!(
            "from publishing to the visible row: p50 {:.1} ms, p99 {:.1} ms",
            self.latency_ms.p50, self.latency_ms.p99
        );
        let Verdict { raw_offsets, accounted, ok } = &self.audit;
        let verdict = if *ok { "nothing lost" } else { "something is WRONG" };
        println!("audit: {accounted} of {raw_offsets} raw offsets accounted for: {verdict}");
        self.wrong.iter().for_each(|wrong| println!("  {wrong}"));
    }
}

/// Gathers the report from the connectors, the topics and the database.
pub(super) async fn gather(
    context: &Context,
    connectors: &BTreeMap<String, StatsReport>,
) -> Result<Report> {
    let mut report = Report::default();
    for (venue, stats) in connectors {
        let always = [Kind::Trade, Kind::Ticker, Kind::Book];
        for (kind, counted) in stats.kinds() {
            if counted.received == 0 && !always.contains(&kind) {
                continue;
            }
            let counts = report.counts(venue, kind);
            (counts.received, counts.published) = (counted.received, counted.published);
        }
        let books = Books {
            updates_applied: stats.books.updates_applied,
            checksums_verified: stats.books.checksums_verified,
            checksums_failed: stats.books.checksums_failed,
            resyncs: stats.books.resyncs,
        };
        report.books.insert(venue.clone(), books);
    }
    let mut report = from_topics(context, report).await?;
    let mut database = PgConnection::connect(&context.config.database.url).await?;
    from_database(&mut database, &mut report).await?;
    report.latency_ms = latency::measure(context, &mut database).await?;
    let stored = context.sink_topics(STORED_KINDS)?;
    let pipeline = &context.config.pipeline.id;
    let audit = audit::accounted(&mut database, &context.config.kafka, pipeline, &stored).await?;
    let whole = audit::run(&context.config, &audit::Scope::default()).await?;
    let ok = audit.ok() && whole.ok;
    report.audit = Verdict { raw_offsets: audit.raw_offsets, accounted: audit.accounted, ok };
    report.wrong = audit.wrong;
    let offences =
        whole.checks.into_iter().filter_map(|check| Some((check.name, check.first_offence?)));
    report.wrong.extend(offences.map(|(check, offence)| format!("{check}: {offence}")));
    Ok(report)
}

async fn from_topics(context: &Context, mut report: Report) -> Result<Report> {
    let kafka = context.config.kafka.clone();
    let checked = context.sink_topics(Kind::raw())?;
    let quarantine = context.sink_topics([Kind::Quarantine])?;
    tokio::task::spawn_blocking(move || {
        for topic in &checked {
            scan(&kafka, topic, |message| {
                if message.payload().is_some() {
                    let venue = venue_of(message.key());
                    count_checked(report.counts(&venue, topic.kind), flags(message));
                }
            })?;
        }
        for topic in &quarantine {
            scan(&kafka, topic, |message| {
                let payload = message.payload().and_then(|value| wire::split(value).ok());
                let event = payload.and_then(|(_, payload)| Quarantine::decode(payload).ok());
                if let Some(event) = event {
                    let raw = checked
                        .iter()
                        .find(|topic| event.origin_topic == format!("{}.raw", topic.name));
                    if let Some(raw) = raw {
                        report.counts(&venue_of(event.key.as_deref()), raw.kind).quarantined += 1;
                    }
                }
            })?;
        }
        Ok(report)
    })
    .await?
}

fn venue_of(key: Option<&[u8]>) -> String {
    let key = String::from_utf8_lossy(key.unwrap_or_default());
    key.split_once(':').map_or("?", |(venue, _)| venue).to_owned()
}

fn flags(message: &impl Message) -> Flags {
    let all = message.headers();
    let found = all.and_then(|all| all.iter().find(|header| header.key == headers::FLAGS));
    let text = found.and_then(|header| std::str::from_utf8(header.value?).ok());
    text.map_or(Flags::NONE, Flags::parse)
}

fn count_checked(counts: &mut Counts, flags: Flags) {
    counts.checked += 1;
    counts.flagged += u64::from(!flags.is_empty());
    counts.duplicates += u64::from(flags.has(Flag::Duplicate));
}

async fn from_database(database: &mut PgConnection, report: &mut Report) -> Result<()> {
    for kind in crate::venue::CHANNELS {
        let Some(table) = kind.spec().table else { continue };
        let of = if kind == Kind::VenueCandle { "where source = 'venue'" } else { "" };
        let sql = format!("select exchange, count(*) from {table} {of} group by exchange");
        for row in sqlx::query(&sql).fetch_all(&mut *database).await? {
            let (venue, count): (String, i64) = (row.try_get(0)?, row.try_get(1)?);
            report.counts(&venue, kind).stored = count as u64;
        }
    }
    let sql = "select timeframe, count(*) from market_data_ohlcv where source = 'tapeline' \
               group by timeframe";
    for row in sqlx::query(sql).fetch_all(database).await? {
        report.candles.insert(row.try_get(0)?, row.try_get(1)?);
    }
    Ok(())
}
