//! Two connectors of the same symbols (docs/adr/0009-two-connectors.md), with a real Redis between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tapeline::venue::driver::{Lease, Shared, VenueConfig};
use tapeline::venue::{Body, Outgoing};
use tapeline_schemas::{BookAction, Control, GapChange, GapState, Kind, Micros};

use crate::common::{Collector, Published, books};
use crate::going_on::{Run, SECOND, assert_book_chain, gaps, trades};
use crate::stage::{Stage, eventually};

const KINDS: [Kind; 2] = [Kind::Trade, Kind::Book];
const TERM: Duration = Duration::from_secs(2);

fn twin(stage: &Stage, instance: &str, name: &str) -> VenueConfig {
    let url = std::env::var("TAPELINE__REDIS__URL");
    let url = url.unwrap_or("redis://127.0.0.1:16379/0".to_owned());
    let name = format!("test.{}.{name}", std::process::id());
    VenueConfig {
        shared: Some(Shared::open(redis::Client::open(url).unwrap()).unwrap()),
        lease: Some(Lease { name, instance: instance.to_owned(), term: TERM }),
        ..stage.config(&["AAA"], &KINDS)
    }
}

fn deltas(published: &[Published]) -> usize {
    books(published, BookAction::Delta).len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_either_of_two_connectors_loses_no_trade_and_books_come_from_one_at_a_time() {
    let stage = Stage::open(&["AAA"]).await;
    let one = Run::start(twin(&stage, "a", "killed"));
    eventually("a holds the lease", || !books(&one.seen(), BookAction::Snapshot).is_empty()).await;
    let resume_from = BTreeMap::from([(Kind::Book, Micros(stage.now()))]);
    let other = Run::start(VenueConfig { resume_from, ..twin(&stage, "b", "killed") });
    eventually("both", || stage.connected().len() == 2).await;
    let mut sent = Vec::new();
    let mut step = || {
        stage.pass(SECOND);
        sent.push(stage.trade("AAA"));
        stage.change("AAA");
        stage.pulse();
    };
    (0..8).for_each(|_| step());
    eventually("all of both", || one.trades("AAA").len() == 8 && other.trades("AAA").len() == 8)
        .await;
    eventually("its book", || deltas(&one.seen()) == 8).await;
    assert!(books(&other.seen(), BookAction::Snapshot).is_empty(), "one publishes books");

    // Killed, not stopped: nothing gives the lease up.
    let covered = stage.now();
    let first = one.kill().await;
    eventually("a takeover", || {
        step();
        deltas(&other.seen()) > 2
    })
    .await;
    let second = other.seen();
    let takeover: Vec<_> = gaps(&second).into_iter().filter(|gap| gap.channel == "book").collect();
    let states: Vec<GapState> = takeover.iter().map(|gap| gap.state).collect();
    assert_eq!(states, [GapState::Opened, GapState::Ended], "{takeover:?}");
    assert!(takeover.iter().all(|gap| gap.cause == "takeover" && gap.from.0 <= covered));
    assert_book_chain(&first);
    assert_book_chain(&second);

    // The first comes back: what it missed is a hole of its own, and the other proves that it is none.
    let resume_from = BTreeMap::from([(Kind::Trade, Micros(covered))]);
    let back = Run::start(VenueConfig { resume_from, ..twin(&stage, "a", "killed") });
    eventually("the hole is filled", || {
        step();
        gaps(&back.seen()).iter().any(|gap| gap.state == GapState::Filled)
    })
    .await;
    let hole = gaps(&back.seen());
    let filled = hole.iter().find(|gap| gap.state == GapState::Filled).unwrap();
    assert_eq!(filled.filled_by.as_deref(), Some("twin b"));
    assert_eq!((filled.from.0, filled.cause.as_str()), (covered, "restart"));
    eventually("all of it", || other.trades("AAA").len() == sent.len()).await;
    assert!(books(&back.seen(), BookAction::Delta).is_empty(), "the other still holds the lease");

    // The second is killed too, and the first has it all.
    let theirs = trades(&other.kill().await, "AAA");
    eventually("the last trade", || back.trades("AAA").last() == sent.last()).await;
    let mut union = [trades(&first, "AAA"), theirs].concat();
    union.sort_unstable();
    union.dedup();
    assert_eq!(union, sent);
    back.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_the_lease_ends_the_holes_that_a_killed_holder_left_open() {
    let stage = Stage::open(&["AAA"]).await;
    let log = Collector::default();
    let one = Run::start_on(twin(&stage, "a", "left"), log.clone());
    eventually("a holds the lease", || !books(&log.take(), BookAction::Snapshot).is_empty()).await;
    let other = Run::start_on(twin(&stage, "b", "left"), log.clone());
    eventually("both", || stage.connected().len() == 2).await;
    stage.pass(SECOND);
    // The holder's last words: a hole of its book, and one of its trades, which the lease is not about.
    for kind in KINDS {
        let hole = GapChange {
            venue: "BINANCE".to_owned(),
            symbol: "AAA-USDT".to_owned(),
            channel: kind.name().to_owned(),
            state: GapState::Opened,
            from: Micros(stage.now()),
            to: None,
            cause: "sequence".to_owned(),
            filled_by: None,
        };
        let body = Body::Control(Control::Gap(hole));
        log.put(Outgoing { kind, key: "BINANCE:AAA-USDT".to_owned(), body });
    }
    one.kill().await;
    let left = || {
        let mut left = gaps(&log.take());
        left.retain(|gap| gap.cause == "sequence");
        left
    };
    eventually("its end", || {
        stage.pass(SECOND);
        stage.change("AAA");
        stage.pulse();
        left().len() > KINDS.len()
    })
    .await;
    other.end().await;
    let left = left();
    let states: Vec<_> = left.iter().map(|gap| (gap.channel.as_str(), gap.state)).collect();
    let (opened, ended) = (GapState::Opened, GapState::Ended);
    assert_eq!(states, [("trade", opened), ("book", opened), ("book", ended)]);
    assert!(left[2].to.is_some_and(|to| to > left[2].from), "{:?}", left[2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_that_is_stopped_gives_its_lease_up_and_without_redis_all_publish() {
    let stage = Stage::open(&["AAA"]).await;
    let one = Run::start(twin(&stage, "a", "stopped"));
    eventually("a holds the lease", || !books(&one.seen(), BookAction::Snapshot).is_empty()).await;
    let long =
        Lease { term: Duration::from_secs(60), ..twin(&stage, "b", "stopped").lease.unwrap() };
    one.end().await;
    // Within a term of a minute this would come too late for `eventually`.
    let other = Run::start(VenueConfig { lease: Some(long), ..twin(&stage, "b", "stopped") });
    eventually("b holds it", || !books(&other.seen(), BookAction::Snapshot).is_empty()).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = redis::Client::open(format!("redis://{nobody}/0")).unwrap();
    let shared = Some(Shared::open(client).unwrap());
    let third = Run::start(VenueConfig { shared, ..twin(&stage, "c", "stopped") });
    eventually("c publishes", || !books(&third.seen(), BookAction::Snapshot).is_empty()).await;
    third.end().await;
    other.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_processes_by_one_name_the_second_publishes_no_book_before_the_first_has_died() {
    let stage = Stage::open(&["AAA"]).await;
    let one = Run::start(twin(&stage, "a", "named"));
    eventually("it holds the lease", || !books(&one.seen(), BookAction::Snapshot).is_empty()).await;
    let namesake = Run::start(twin(&stage, "a", "named"));
    eventually("both", || stage.connected().len() == 2).await;
    let step = || {
        stage.pass(SECOND);
        let trade = stage.trade("AAA");
        stage.change("AAA");
        stage.pulse();
        trade
    };
    let start = Instant::now();
    eventually("more than a term", || {
        step();
        start.elapsed() > TERM * 2
    })
    .await;
    let last = step();
    eventually("its trades", || namesake.trades("AAA").last() == Some(&last)).await;
    eventually("the first's book", || one.trades("AAA").last() == Some(&last)).await;
    let seen = namesake.seen();
    assert_eq!((books(&seen, BookAction::Snapshot).len(), deltas(&seen)), (0, 0));
    assert!(deltas(&one.seen()) > 0);

    // Killed, and started again by its name: whichever has the name next, it is one.
    one.kill().await;
    let back = Run::start(twin(&stage, "a", "named"));
    eventually("a takeover", || {
        step();
        deltas(&namesake.seen()) + deltas(&back.seen()) > 2
    })
    .await;
    let of = |run: &Run| deltas(&run.seen()) > 0;
    assert!(of(&namesake) != of(&back), "one publishes books");
    namesake.end().await;
    back.end().await;

    // All were stopped, not killed: within a term of a minute this would come too late for `eventually`.
    let long = Lease { term: Duration::from_secs(60), ..twin(&stage, "a", "named").lease.unwrap() };
    let next = Run::start(VenueConfig { lease: Some(long), ..twin(&stage, "a", "named") });
    eventually("at once", || !books(&next.seen(), BookAction::Snapshot).is_empty()).await;
    next.end().await;
}
