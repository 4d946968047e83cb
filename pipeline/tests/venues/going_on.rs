//! What goes on while connections are renewed, feeds fall silent and subscriptions change.

use std::sync::Arc;
use std::time::Duration;

use tapeline::config::Config;
use tapeline::connect;
use tapeline::venue::driver::{self, PlaybackClock, Subscriptions, VenueConfig};
use tapeline::venue::{StatsReport, VenueStats};
use tapeline_schemas::{BookAction, Control, GapChange, GapState, Kind};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::common::{Collector, Published};
use crate::stage::{Stage, eventually};

pub(crate) const SECOND: i64 = 1_000_000;

/// A driver under way.
pub(crate) struct Run {
    published: Collector,
    pub(crate) orders: mpsc::Sender<Subscriptions>,
    stop: CancellationToken,
    driver: JoinHandle<StatsReport>,
}

impl Run {
    pub(crate) fn start(config: VenueConfig) -> Run {
        Run::start_on(config, Collector::default())
    }

    /// Publishes into a log that others may share.
    pub(crate) fn start_on(config: VenueConfig, published: Collector) -> Run {
        let (orders, inbox) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let (publisher, cancel) = (Arc::new(published.clone()), stop.clone());
        let driver = tokio::spawn(async move {
            let (clock, stats) = (Arc::new(PlaybackClock), Arc::new(VenueStats::default()));
            driver::run_with(config, publisher, clock, stats, inbox, cancel).await.unwrap()
        });
        Run { published, orders, stop, driver }
    }

    pub(crate) async fn end(self) -> Vec<Published> {
        self.stop.cancel();
        self.driver.await.unwrap();
        self.published.take()
    }

    pub(crate) fn trades(&self, base: &str) -> Vec<i64> {
        trades(&self.published.take(), base)
    }

    /// Ends it without a word.
    pub(crate) async fn kill(self) -> Vec<Published> {
        self.driver.abort();
        assert!(self.driver.await.unwrap_err().is_cancelled());
        self.published.take()
    }

    pub(crate) fn seen(&self) -> Vec<Published> {
        self.published.take()
    }

    fn gaps(&self) -> Vec<GapChange> {
        gaps(&self.published.take())
    }
}

pub(crate) fn trades(published: &[Published], base: &str) -> Vec<i64> {
    let of = |one: &Published| match one {
        Published::Trade(t) if t.symbol == format!("{base}-USDT") => t.trade_id.parse().ok(),
        _ => None,
    };
    published.iter().filter_map(of).collect()
}

pub(crate) fn gaps(published: &[Published]) -> Vec<GapChange> {
    let of = |one: &Published| match one {
        Published::Control(_, Control::Gap(gap)) => Some(gap.clone()),
        _ => None,
    };
    published.iter().filter_map(of).collect()
}

/// A reader's book follows the deltas without a break and never goes back.
pub(crate) fn assert_book_chain(published: &[Published]) {
    let mut last = None;
    for one in published {
        let Published::Book(book) = one else { continue };
        if book.symbol != "AAA-USDT" {
            continue;
        }
        let sequence = book.sequence.unwrap();
        match book.action {
            BookAction::Delta => assert_eq!(last.map(|last| last + 1), book.first_sequence),
            _ => assert!(last.is_none_or(|last| sequence >= last), "{last:?} {book:?}"),
        }
        last = Some(sequence);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_connection_overlaps_the_old_one_and_leaves_no_gap_no_loss_and_no_double() {
    let stage = Stage::open(&["AAA"]).await;
    let config = stage.config(&["AAA"], &[Kind::Trade, Kind::Book]);
    let run = Run::start(VenueConfig { max_age: Some(Duration::from_millis(200)), ..config });
    eventually("connected", || stage.came() == 1).await;
    let mut sent = Vec::new();
    while stage.came() < 4 {
        stage.pass(SECOND / 20);
        sent.push(stage.trade("AAA"));
        stage.change("AAA");
        stage.pulse();
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    eventually("all of it", || run.trades("AAA").len() >= sent.len()).await;
    let published = run.end().await;
    let mut received = trades(&published, "AAA");
    received.sort_unstable();
    assert_eq!(received, sent);
    assert_eq!(gaps(&published), []);
    assert_book_chain(&published);
    let stated = published
        .iter()
        .filter(|one| matches!(one, Published::Book(book) if book.action == BookAction::Snapshot));
    assert!(stated.count() >= 3, "each new connection states its book");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_that_falls_silent_alone_is_a_stale_gap_and_starts_anew_alone() {
    let stage = Stage::open(&["AAA", "BBB", "CCC"]).await;
    let config = stage.config(&["AAA", "BBB", "CCC"], &[Kind::Trade]);
    let run = Run::start(VenueConfig { stale_after_micros: Some(SECOND), ..config });
    eventually("connected", || stage.came() == 1).await;
    for step in 0..40 {
        stage.pass(SECOND / 2);
        stage.trade("AAA");
        stage.trade("BBB");
        if step % 3 == 0 {
            stage.trade("CCC");
        }
        stage.pulse();
    }
    eventually("40 trades", || run.trades("AAA").len() == 40).await;
    let silent_since = stage.now();
    // The second is quiet by its own pace, and the third has not been silent for longer than usual.
    for step in 0..5 {
        stage.pass(SECOND / 2);
        stage.trade("BBB");
        if step % 3 == 0 {
            stage.trade("CCC");
        }
        stage.pulse();
    }
    eventually("a gap that ended", || run.gaps().len() == 2).await;
    let gaps = run.gaps();
    assert!(gaps.iter().all(|gap| gap.symbol == "AAA-USDT" && gap.channel == "trade"), "{gaps:?}");
    assert!(gaps.iter().all(|gap| gap.cause == "stale" && gap.from.0 == silent_since), "{gaps:?}");
    let states: Vec<GapState> = gaps.iter().map(|gap| gap.state).collect();
    assert_eq!(states, [GapState::Opened, GapState::Ended]);
    let heard = stage.heard();
    assert!(heard.iter().all(|text| text.contains("aaausdt@aggTrade")), "{heard:?}");
    assert!(heard[0].contains("UNSUBSCRIBE") && heard.len() == 2, "{heard:?}");
    assert_eq!(stage.came(), 1, "the connection stays");
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_feeds_that_start_anew_keep_the_venues_pace_and_the_connection_is_read_meanwhile() {
    let bases = ["AAA", "BBB", "CCC", "DDD", "EEE", "FFF", "GGG", "HHH"];
    let stage = Stage::open(&bases).await;
    let config = stage.config(&bases, &[Kind::Trade]);
    let run = Run::start(VenueConfig { stale_after_micros: Some(SECOND), ..config });
    eventually("connected", || stage.came() == 1).await;
    for _ in 0..40 {
        stage.pass(SECOND / 2);
        bases.iter().for_each(|base| _ = stage.trade(base));
        stage.pulse();
    }
    eventually("40 trades", || run.trades("HHH").len() == 40).await;
    for _ in 0..5 {
        stage.pass(SECOND / 2);
        stage.trade("AAA");
        stage.pulse();
    }
    // Each of the others is unsubscribed from and subscribed to.
    let all = 2 * (bases.len() - 1);
    eventually("the first", || !stage.heard().is_empty()).await;
    let trade = stage.trade("AAA");
    eventually("a trade", || run.trades("AAA").last() == Some(&trade)).await;
    assert!(stage.heard().len() < all, "it was read before all was sent");
    eventually("all", || stage.heard().len() == all).await;
    // Binance takes five a second.
    let second = Duration::from_secs(1);
    assert!(stage.heard_at().windows(6).all(|six| six[5] - six[0] > second));
    assert_eq!(stage.came(), 1, "the connection stays");
    run.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_change_at_run_time_and_what_stays_goes_on() {
    let stage = Stage::open(&["AAA", "BBB", "CCC"]).await;
    let kinds = [Kind::Trade, Kind::Book];
    let run = Run::start(stage.config(&["AAA", "BBB"], &kinds));
    eventually("connected", || stage.came() == 1).await;
    let mut sent = Vec::new();
    let mut step = || {
        stage.pass(SECOND / 4);
        sent.push(stage.trade("AAA"));
        stage.change("AAA");
        (stage.trade("BBB"), stage.trade("CCC"))
    };
    step();
    // One comes: it gets a connection of its own.
    let with_c = driver::find(&stage.config(&["AAA", "BBB", "CCC"], &kinds)).await.unwrap();
    run.orders.send(with_c).await.unwrap();
    eventually("another connection", || stage.connected().len() == 2).await;
    assert_eq!(stage.connected(), [(0, 4), (1, 2)]);
    let (_, of_c) = step();
    eventually("its trade", || run.trades("CCC") == [of_c]).await;
    // One goes: the others of its connection change over without a gap.
    let without_b = driver::find(&stage.config(&["AAA", "CCC"], &kinds)).await.unwrap();
    run.orders.send(without_b).await.unwrap();
    while stage.connected() != [(1, 2), (2, 2)] {
        step();
        stage.pulse();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let of_b = run.trades("BBB").len();
    let (_, last_of_c) = step();
    eventually("all of it", || run.trades("CCC").last() == Some(&last_of_c)).await;
    eventually("all of it", || run.trades("AAA").len() == sent.len()).await;
    let published = run.end().await;
    assert_eq!(trades(&published, "AAA"), sent);
    assert_eq!(trades(&published, "BBB").len(), of_b);
    assert_eq!(gaps(&published), []);
    assert_book_chain(&published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_lost_before_its_successor_is_there_is_a_gap_that_ends_with_it() {
    let stage = Stage::open(&["AAA"]).await;
    let config = stage.config(&["AAA"], &[Kind::Trade]);
    // The overlap is longer than the old connection lives.
    let overlap_micros = 3_600 * SECOND;
    let max_age = Some(Duration::from_millis(100));
    let run = Run::start(VenueConfig { max_age, overlap_micros, ..config });
    eventually("connected", || stage.came() == 1).await;
    stage.pass(SECOND);
    let first = stage.trade("AAA");
    eventually("a successor", || stage.came() == 2).await;
    eventually("a trade", || run.trades("AAA") == [first]).await;
    let lost_at = stage.now();
    stage.cut();
    eventually("a gap", || run.gaps().len() == 1).await;
    eventually("connected again", || stage.connected().len() == 2).await;
    stage.pass(SECOND);
    let second = stage.trade("AAA");
    eventually("its end", || run.gaps().len() == 2).await;
    let published = run.end().await;
    let gaps = gaps(&published);
    assert!(gaps.iter().all(|gap| gap.cause == "disconnect" && gap.from.0 == lost_at), "{gaps:?}");
    assert_eq!(gaps[1].to.map(|to| to.0), Some(stage.now()));
    assert_eq!(trades(&published, "AAA"), [first, second]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_configuration_that_names_what_is_not_listed_is_refused_with_the_key() {
    let stage = Stage::open(&["AAA"]).await;
    let rest_url = stage.config(&["AAA"], &[Kind::Trade]).rest_url;
    let load = |symbols: &str| {
        let key = |name: &str| format!("TAPELINE__CONNECT__VENUES__BINANCE__{name}");
        let environment =
            [(key("REST_URL"), rest_url.clone()), (key("SYMBOLS"), symbols.to_owned())];
        Config::load_with(None, environment).unwrap()
    };
    connect::prepare(&load("AAA-USDT"), &[]).await.unwrap();
    let error = connect::prepare(&load("AAA-USDT,AAB-USDT"), &[]).await.unwrap_err();
    let error = format!("{error:#}");
    assert!(error.starts_with("connect.venues.BINANCE.symbols: "), "{error}");
    assert!(error.contains("AAB-USDT") && error.contains("AAA-USDT"), "{error}");
}
