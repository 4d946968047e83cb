//! Raw frames that a driver kept, decoded again: the same events, in the same order.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tapeline::config;
use tapeline::connect;
use tapeline::playback::simulated::{self, Config};
use tapeline::playback::{self, Recording, Speed};
use tapeline::record::Limits;
use tapeline::venue::Settings;
use tapeline::venue::driver::{self, DriverError, PlaybackClock, VenueConfig};
use tapeline_schemas::Kind;
use tokio_util::sync::CancellationToken;

use crate::common::{Collector, Published, VENUES, recordings};
use crate::going_on::{Run, SECOND, trades};
use crate::stage::{Stage, eventually};

const MIB: u64 = 1024 * 1024;

/// A directory of a test's own, empty.
fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tapeline-kept-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

/// What is published, without what is said of the time that it covers.
fn events(published: Vec<Published>) -> Vec<Published> {
    published.into_iter().filter(|one| !matches!(one, Published::Broadcast(..))).collect()
}

fn limits(dir: &Path, file_bytes: u64) -> Limits {
    let max_age = std::time::Duration::from_secs(3_600);
    Limits { dir: dir.to_owned(), file_bytes, max_bytes: 10_000 * MIB, max_age }
}

/// Plays a venue to a driver that keeps its frames in `dir`.
async fn keep(config: VenueConfig, dir: &Path, file_bytes: u64) -> Vec<Published> {
    let config = VenueConfig { record: Some(limits(dir, file_bytes)), ..config };
    let collector = Collector::default();
    let (publisher, clock) = (Arc::new(collector.clone()), Arc::new(PlaybackClock));
    let cancel = CancellationToken::new();
    driver::run(config, publisher, clock, Arc::default(), cancel).await.unwrap();
    events(collector.take())
}

async fn decode(venue: &str, dir: &Path) -> Result<Vec<Published>, DriverError> {
    let nothing = Settings::new(Vec::new(), Vec::new());
    let config = VenueConfig::live(venue, nothing).unwrap();
    let (collector, cancel) = (Collector::default(), CancellationToken::new());
    driver::again(config, dir, Arc::new(collector.clone()), Arc::default(), cancel).await?;
    Ok(events(collector.take()))
}

fn assert_same(venue: &str, live: &[Published], again: &[Published]) {
    for (number, (live, again)) in live.iter().zip(again).enumerate() {
        assert_eq!(live, again, "{venue}: record {number}");
    }
    assert_eq!(live.len(), again.len(), "{venue}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_a_faulty_venue_decoded_again_give_the_same_events_gaps_and_books() {
    let config = Config { faults_each: 4, ..Config::default() };
    let addr = "127.0.0.1:0".parse().unwrap();
    let venue = simulated::serve(&config, addr, Speed::Max).await.unwrap();
    let symbols = config.symbols.iter().map(|(base, quote)| format!("{base}-{quote}")).collect();
    let settings = Settings::new(symbols, vec![Kind::Trade, Kind::Ticker, Kind::Book]);
    let (rest, ws) = (venue.handle.rest_url("binance"), venue.handle.ws_url("binance"));
    let config = VenueConfig::playback("binance", settings, rest, ws).unwrap();
    let dir = directory("simulated");
    // Small files: a run goes on across them.
    let live = keep(config, &dir, 16 * 1024).await;
    assert!(live.iter().any(|one| matches!(one, Published::Control(Kind::Book, _))));
    let files = std::fs::read_dir(&dir).unwrap().count();
    assert!(files > 3, "{files}");
    assert_same("BINANCE", &live, &decode("BINANCE", &dir).await.unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_of_every_recorded_venue_decoded_again_give_the_same_events() {
    let Some(recorded) = recordings() else { return };
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = playback::serve(&recorded, &VENUES, addr, Speed::Max).await.unwrap();
    for venue in VENUES {
        let settings = Recording::read(&recorded, venue).unwrap().settings();
        let (rest, ws) = (server.rest_url(venue), server.ws_url(venue));
        let config = VenueConfig::playback(venue, settings, rest, ws).unwrap();
        let dir = directory(venue);
        let live = keep(config, &dir, MIB).await;
        assert!(!live.is_empty(), "{venue}");
        assert_same(venue, &live, &decode(venue, &dir).await.unwrap());
        std::fs::remove_dir_all(&dir).unwrap();
    }
    server.shutdown().await;
}

#[tokio::test]
async fn a_recording_that_no_connector_kept_is_not_decoded_again() {
    let dir = directory("plain");
    std::fs::create_dir_all(&dir).unwrap();
    assert!(matches!(decode("KRAKEN", &dir).await, Err(DriverError::Recording(_))));
    std::fs::write(dir.join("KRAKEN.0"), "configuration: {\"trades\":[]}\n").unwrap();
    assert!(matches!(decode("KRAKEN", &dir).await, Err(DriverError::Recording(_))));
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_connectors_with_one_directory_keep_a_recording_each() {
    let dir = directory("twins");
    let stage = Stage::open(&["AAA"]).await;
    let run = |instance: &str| {
        let mut config = config::Config::default();
        config.connect.instance = instance.to_owned();
        config.connect.record.dir = dir.to_string_lossy().into_owned();
        let nothing = Settings::new(Vec::new(), Vec::new());
        let record = connect::reached(&config, "BINANCE", nothing).unwrap().record;
        Run::start(VenueConfig { record, ..stage.config(&["AAA"], &[Kind::Trade]) })
    };
    let runs = [run("a"), run("b")];
    eventually("both", || stage.connected().len() == 2).await;
    let mut sent = Vec::new();
    for _ in 0..5 {
        stage.pass(SECOND);
        sent.push(stage.trade("AAA"));
    }
    for run in runs {
        eventually("all of it", || run.trades("AAA") == sent).await;
        run.end().await;
    }
    for instance in ["a", "b"] {
        let again = decode("BINANCE", &dir.join(instance)).await.unwrap();
        assert_eq!(trades(&again, "AAA"), sent, "{instance}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_symbol_that_was_listed_after_the_start_and_came_by_a_reload_is_decoded_again() {
    let dir = directory("reload");
    let stage = Stage::open(&["AAA"]).await;
    let kinds = [Kind::Trade];
    let record = Some(limits(&dir, MIB));
    let run = Run::start(VenueConfig { record, ..stage.config(&["AAA"], &kinds) });
    eventually("connected", || stage.connected().len() == 1).await;
    stage.pass(SECOND);
    let first = stage.trade("AAA");
    stage.list("BBB");
    let with_b = driver::find(&stage.config(&["AAA", "BBB"], &kinds)).await.unwrap();
    run.orders.send(with_b).await.unwrap();
    eventually("another connection", || stage.connected().len() == 2).await;
    stage.pass(SECOND);
    let (second, of_b) = (stage.trade("AAA"), stage.trade("BBB"));
    eventually("all of it", || run.trades("AAA") == [first, second] && run.trades("BBB") == [of_b])
        .await;
    let live = events(run.end().await);
    assert_same("BINANCE", &live, &decode("BINANCE", &dir).await.unwrap());
    std::fs::remove_dir_all(&dir).unwrap();
}
