//! A driver's life over real sockets: losing the venue, being stopped, being told nonsense.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use tapeline::playback::simulated::{self, Config, Simulated};
use tapeline::playback::{self, Speed};
use tapeline::venue::driver::{self, DriverError, PlaybackClock, SystemClock, VenueConfig};
use tapeline::venue::{Outgoing, PublishError, Publisher, Settings, VenueStats};
use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::common::{Collector, Published, books};

const KINDS: [Kind; 3] = [Kind::Trade, Kind::Ticker, Kind::Book];

/// Keeps what is published and tells of every hole that ended.
struct Watcher {
    collector: Collector,
    ended: mpsc::Sender<()>,
}

impl Publisher for Watcher {
    async fn publish(&self, outgoing: Outgoing) -> Result<(), PublishError> {
        let state = match &outgoing.body {
            tapeline::venue::Body::Control(Control::Gap(gap)) => Some(gap.state),
            _ => None,
        };
        self.collector.put(outgoing);
        if state == Some(GapState::Ended) {
            let _ = self.ended.try_send(());
        }
        Ok(())
    }

    fn broadcast(
        &self,
        kind: Kind,
        control: Control,
    ) -> impl Future<Output = Result<(), PublishError>> + Send {
        self.collector.broadcast(kind, control)
    }
}

/// Never takes a record.
struct Stuck(mpsc::Sender<()>);

impl Publisher for Stuck {
    async fn publish(&self, _outgoing: Outgoing) -> Result<(), PublishError> {
        let _ = self.0.try_send(());
        std::future::pending().await
    }

    async fn broadcast(&self, _kind: Kind, _control: Control) -> Result<(), PublishError> {
        std::future::pending().await
    }
}

fn tape() -> Config {
    Config { events: 200, faults_each: 0, ..Config::default() }
}

async fn venue() -> (Simulated, VenueConfig) {
    let config = tape();
    let addr = "127.0.0.1:0".parse().unwrap();
    let venue = simulated::serve(&config, addr, Speed::Max).await.unwrap();
    let symbols = config.symbols.iter().map(|(base, quote)| format!("{base}-{quote}")).collect();
    let settings = Settings::new(symbols, KINDS.to_vec());
    let (rest, ws) = (venue.handle.rest_url("binance"), venue.handle.ws_url("binance"));
    (venue, VenueConfig::playback("BINANCE", settings, rest, ws).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_opens_a_gap_of_every_feed_that_ends_after_the_reconnect() {
    let (_venue, config) = venue().await;
    let from = Micros(7);
    let resume_from = BTreeMap::from([(Kind::Trade, from)]);
    let config = VenueConfig { finite: false, resume_from, ..config };
    let feeds = config.settings.symbols.len() * KINDS.len();
    let restarts = config.settings.symbols.len();
    let (ended, mut endings) = mpsc::channel(64);
    let collector = Collector::default();
    let publisher = Arc::new(Watcher { collector: collector.clone(), ended });
    let cancel = CancellationToken::new();
    let stats = Arc::new(VenueStats::default());
    let clock = Arc::new(PlaybackClock);
    let driver = tokio::spawn(driver::run(config, publisher, clock, stats, cancel.clone()));
    for _ in 0..restarts + feeds {
        endings.recv().await.unwrap();
    }
    cancel.cancel();
    let report = driver.await.unwrap().unwrap();
    assert!(report.disconnects >= 1);
    let all = collector.take();
    let gaps = all.iter().filter_map(|published| match published {
        Published::Control(_, Control::Gap(gap)) => Some(gap),
        _ => None,
    });
    let (restart, lost): (Vec<_>, Vec<_>) = gaps.partition(|gap| gap.cause == "restart");
    assert_eq!(restart.len(), 2 * restarts);
    assert!(restart.iter().all(|gap| gap.from == from && gap.channel == "trade"));
    let opened: Vec<_> =
        lost.iter().filter(|gap| gap.state == GapState::Opened).take(feeds).collect();
    assert_eq!(opened.len(), feeds);
    // The tape's last frame was received then, and nothing after it is known.
    let last = tape_end(&tape());
    assert!(opened.iter().all(|gap| gap.from == last && gap.cause == "disconnect"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holes_that_a_connector_left_open_are_ended_by_the_next_one() {
    let (_venue, config) = venue().await;
    let symbol = config.settings.symbols[0].clone();
    let left = |from, cause: &str| GapChange {
        venue: "BINANCE".to_owned(),
        symbol: symbol.clone(),
        channel: "trade".to_owned(),
        state: GapState::Opened,
        from: Micros(from),
        to: None,
        cause: cause.to_owned(),
        filled_by: None,
    };
    let left_open = vec![left(5, "stale"), left(3, "disconnect")];
    let resume_from = BTreeMap::from([(Kind::Trade, Micros(7))]);
    let config = VenueConfig { resume_from, left_open, ..config };
    let collector = Collector::default();
    let (publisher, clock) = (Arc::new(collector.clone()), Arc::new(PlaybackClock));
    driver::run(config, publisher, clock, Arc::default(), CancellationToken::new()).await.unwrap();
    let all = collector.take();
    let gaps: Vec<_> = all
        .iter()
        .filter_map(|published| match published {
            Published::Control(_, Control::Gap(gap)) if gap.symbol == symbol => Some(gap),
            _ => None,
        })
        .collect();
    let said: Vec<_> = gaps.iter().map(|gap| (gap.state, gap.from.0, gap.cause.as_str())).collect();
    let expected = [
        (GapState::Opened, 3, "disconnect"),
        (GapState::Ended, 5, "stale"),
        (GapState::Ended, 3, "disconnect"),
    ];
    assert_eq!(said, expected, "one hole goes on, no second one is opened");
    assert_eq!(gaps[1].to, gaps[2].to);
}

/// A hundred events a second, and the last word of each book behind them.
fn tape_end(tape: &Config) -> Micros {
    let between = 1_000_000 / i64::from(tape.events_per_second);
    let last = tape.events - 1 + tape.symbols.len();
    tape.start.plus(between * i64::try_from(last).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_with_the_wall_clock_takes_a_playback_for_the_venue() {
    let (venue, config) = venue().await;
    let collector = Collector::default();
    let stats = Arc::new(VenueStats::default());
    let (publisher, clock) = (Arc::new(collector.clone()), Arc::new(SystemClock::default()));
    let cancel = CancellationToken::new();
    let report = driver::run(config, publisher, clock, stats, cancel).await.unwrap();
    assert_eq!(report.trade.published, venue.report.trades);
    let all = collector.take();
    let year_2025 = Micros(1_735_689_600_000_000);
    let mut times = all.iter().filter_map(|published| match published {
        Published::Trade(t) => Some((t.receive_time, t.venue_time)),
        _ => None,
    });
    assert!(times.all(|(received, happened)| received > year_2025 && happened < year_2025));
    assert!(!books(&all, tapeline_schemas::BookAction::Top).is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_is_stopped_even_while_its_publisher_takes_nothing() {
    let (_venue, config) = venue().await;
    let (stuck, mut waiting) = mpsc::channel(64);
    let cancel = CancellationToken::new();
    let stats = Arc::new(VenueStats::default());
    let (publisher, clock) = (Arc::new(Stuck(stuck)), Arc::new(PlaybackClock));
    let driver = tokio::spawn(driver::run(config, publisher, clock, stats, cancel.clone()));
    waiting.recv().await.unwrap();
    cancel.cancel();
    let report = driver.await.unwrap().unwrap();
    assert_eq!(report.trade.published + report.ticker.published + report.book.published, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_symbol_or_venue_is_refused_at_the_start() {
    let (_venue, mut config) = venue().await;
    config.settings.symbols = vec!["BTC-USD".to_owned()];
    let run = |config| {
        let (publisher, stats) = (Arc::new(Collector::default()), Arc::default());
        driver::run(config, publisher, Arc::new(PlaybackClock), stats, CancellationToken::new())
    };
    let error = run(config.clone()).await.unwrap_err();
    let DriverError::UnknownSymbol(unknown) = &error else { panic!("{error}") };
    assert_eq!(unknown.near, ["BTC-USDT"]);
    config.venue = "MTGOX".to_owned();
    assert!(run(config).await.unwrap_err().to_string().contains("expected one of BINANCE"));
}

/// A recording of our own: two connections, two symbols, an answer twice.
fn write_recording() -> std::path::PathBuf {
    let dir = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("venues-own-recording");
    std::fs::create_dir_all(&dir).unwrap();
    let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
    write(
        "KRAKEN.0",
        "https://api.kraken.com/0/public/AssetPairs -> 1.0: {\"error\":[],\"result\":{\"XXBTZUSD\":{\"wsname\":\"XBT/USD\"},\"XDGUSD\":{\"wsname\":\"XDG\\/USD\"},\"dark\":{}}}\n\
         configuration: {}\n",
    );
    write(
        "KRAKEN.http.0.0",
        "https://api.kraken.com/x?a=1&b=2 -> 1.5: first\nhttps://api.kraken.com/x?a=1&b=2 -> 1.6: second\n",
    );
    write(
        "KRAKEN.ws.1.0",
        "wss://ws.kraken.com <-> 1.9\nwss://ws.kraken.com <- 2.0: {}\n\
         2.0: {\"event\":\"systemStatus\"}\n\
         2.5: [1,[[\"1.10\",\"2\",\"2.4\",\"b\",\"l\",\"\"]],\"trade\",\"XBT/USD\"]\n\
         2.6: [2,[[\"0.10\",\"2\",\"2.4\",\"b\",\"l\",\"\"]],\"trade\",\"XDG/USD\"]\n\
         2.7: {\"event\":\"heartbeat\"}\n",
    );
    write(
        "KRAKEN.ws.2.0",
        "wss://ws.kraken.com <-> 1.9\n2.1: [3,{},\"ticker\",\"XBT/USD\"]\n2.2: {\"event\":\"heartbeat\"}\n",
    );
    dir
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_recording_plays_and_a_client_gets_only_what_it_subscribed_to() {
    let dir = write_recording();
    let addr = "127.0.0.1:0".parse().unwrap();
    let server = playback::serve(&dir, &["kraken"], addr, Speed::Times(1e6)).await.unwrap();
    let get = |path: &str| reqwest::get(format!("{}{path}", server.rest_url("KRAKEN")));
    let first = get("/x?b=2&a=1").await.unwrap();
    assert_eq!(first.headers()["x-recorded-at"], "1500000");
    assert_eq!(first.text().await.unwrap(), "first");
    for _ in 0..2 {
        assert_eq!(get("/x?a=1&b=2").await.unwrap().text().await.unwrap(), "second");
    }
    let absent = get("/x?a=1").await.unwrap();
    assert_eq!(absent.status().as_u16(), 404);
    assert!(absent.text().await.unwrap().contains("\"error\""));

    let settings = Settings::new(vec!["DOGE-USD".to_owned()], vec![Kind::Trade]);
    let (rest, ws) = (server.rest_url("KRAKEN"), server.ws_url("KRAKEN"));
    let config = VenueConfig::playback("kraken", settings, rest, ws).unwrap();
    // Twice: each client gets the tape from its beginning.
    for _ in 0..2 {
        let collector = Collector::default();
        let (publisher, clock) = (Arc::new(collector.clone()), Arc::new(PlaybackClock));
        let cancel = CancellationToken::new();
        let run = driver::run(config.clone(), publisher, clock, Arc::default(), cancel);
        let report = run.await.unwrap();
        assert_eq!((report.trade.published, report.unknown_messages), (1, 0));
        let all = collector.take();
        let trade = all.iter().find_map(|published| match published {
            Published::Trade(trade) => Some((trade.symbol.to_string(), trade.receive_time)),
            _ => None,
        });
        assert_eq!(trade, Some(("DOGE-USD".to_owned(), Micros(2_600_000))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_that_is_not_there_is_said_so() {
    let dir = write_recording();
    let addr = "127.0.0.1:0".parse().unwrap();
    let error = playback::serve(&dir, &["upbit"], addr, Speed::Max).await.unwrap_err();
    assert!(error.to_string().starts_with("no recording of UPBIT"), "{error}");
    assert!("0".parse::<Speed>().is_err() && "inf".parse::<Speed>().is_err());
    assert_eq!("max".parse(), Ok(Speed::Max));
    assert_eq!("2.5".parse(), Ok(Speed::Times(2.5)));
}
