//! `store` against a real TimescaleDB that dies, freezes, or hears of two owners (invariant 2).
//!
//! Failpoints are the process's: one test at a time.

mod common;

use std::sync::mpsc;
use std::time::Duration;

use common::{Database, at, sink, store, trades};
use sqlx::Executor;
use tapeline_schemas::Kind;
use tapeline_stages::failpoint;
use tapeline_stages::flow::{Sink, SinkError, Start};
use tapeline_stages::sinks::timescale::TimescaleSink;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

async fn assigned(url: &str) -> TimescaleSink {
    let mut sink = sink(url);
    sink.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    sink
}

fn fatal(result: Result<impl Sized, SinkError>) -> String {
    match result {
        Err(SinkError::Fatal(reason)) => reason,
        Err(other) => panic!("expected a fatal error, got {other}"),
        Ok(_) => panic!("expected a fatal error"),
    }
}

const END_BACKENDS: &str = "select pg_terminate_backend(pid, 5000) from pg_stat_activity
    where application_name = 'tapeline-store' and datname = current_database()";

/// Ends the backends of this database's sinks and waits until they are gone, from a thread.
fn end_backends(url: &str) {
    let url = url.to_owned();
    let ending = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let mut other = <sqlx::PgConnection as sqlx::Connection>::connect(&url).await?;
            other.execute(END_BACKENDS).await.map(drop)
        })
    });
    ending.join().expect("no panic").expect("backends can be ended");
}

/// A backend that dies anywhere in a batch costs a repetition, never a row.
#[tokio::test]
async fn a_lost_connection_at_any_point_loses_and_doubles_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut sink = assigned(&database.url).await;
    let places =
        ["store.before_copy", "store.mid_copy", "store.before_commit", "store.after_commit"];
    for (batch, place) in places.into_iter().enumerate() {
        let url = database.url.clone();
        failpoint::arm(place, 1, move || end_backends(&url));
        let events = trades(batch as i64 * 50, batch as i64 * 50 + 50);
        let mut written = store(&mut sink, &events).await;
        if place != "store.after_commit" {
            assert!(matches!(written, Err(SinkError::Retry(_))), "{place}: {written:?}");
            written = store(&mut sink, &events).await;
        }
        written.expect(place);
        assert_eq!(database.count("market_data_trades").await, batch as i64 * 50 + 50, "{place}");
    }
    // The connection that went after the last commit is noticed by the next batch.
    let events = trades(200, 250);
    if store(&mut sink, &events).await.is_err() {
        store(&mut sink, &events).await.expect("written");
    }
    assert_eq!(database.count("market_data_trades").await, 250);
    let ledger = "select sum(stored) || ' ' || count(*) from tapeline_ledger";
    assert_eq!(database.text(ledger).await, "250 5");
}

/// Passes bytes on, until it has passed on a COMMIT: the answer to that is cut off.
async fn pass(
    mut client: TcpStream,
    mut server: TcpStream,
    cuts: std::sync::Arc<std::sync::atomic::AtomicU32>,
) {
    use std::sync::atomic::Ordering::Relaxed;
    let (mut from_client, mut from_server) = (vec![0; 65_536], vec![0; 65_536]);
    let mut committed = false;
    loop {
        tokio::select! {
            read = client.read(&mut from_client) => {
                let Ok(length @ 1..) = read else { return };
                let bytes = &from_client[..length];
                committed = bytes.windows(7).any(|word| word == b"commit\0");
                if server.write_all(bytes).await.is_err() { return }
            }
            read = server.read(&mut from_server) => {
                let Ok(length @ 1..) = read else { return };
                // The answer to COMMIT: it is durable, and the client never hears of it.
                if committed && cuts.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok() {
                    return;
                }
                if client.write_all(&from_server[..length]).await.is_err() { return }
            }
        }
    }
}

#[tokio::test]
async fn a_batch_whose_commit_went_unanswered_is_there_once() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let (_, server) = database.url.split_once('@').expect("a user");
    let (server, name) = server.split_once('/').expect("a database");
    let cuts = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (server, shared) = (server.to_owned(), cuts.clone());
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("PostgreSQL answers");
            tokio::spawn(pass(client, server, shared.clone()));
        }
    });
    let mut sink = assigned(&format!("postgres://tapeline:tapeline@127.0.0.1:{port}/{name}")).await;
    for batch in 0..5 {
        let events = trades(batch * 50, batch * 50 + 50);
        // The batch's own COMMIT, and the COMMITs of the claims that look for it.
        cuts.store(batch as u32, std::sync::atomic::Ordering::Relaxed);
        let mut retries = 0;
        while let Err(error) = store(&mut sink, &events).await {
            assert!(matches!(error, SinkError::Retry(_)), "{error}");
            retries += 1;
        }
        assert_eq!(retries, batch, "one for each cut");
        assert_eq!(database.count("market_data_trades").await, batch * 50 + 50);
    }
    let ledger = "select sum(stored) || ' ' || count(*) from tapeline_ledger";
    assert_eq!(database.text(ledger).await, "250 5");
}

#[tokio::test]
async fn a_zombies_write_is_refused_and_names_the_place() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut zombie = assigned(&database.url).await;
    store(&mut zombie, &trades(0, 50)).await.expect("written");
    let mut successor = sink(&database.url);
    let resumes = successor.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    assert_eq!((&resumes[0].start, resumes[0].held_origin), (&Start::At(50), Some(49)));
    // Even before the successor has written anything.
    let reason = fatal(store(&mut zombie, &trades(50, 100)).await);
    assert!(
        reason.contains("md.trade [0]") && reason.contains("lost to another owner"),
        "{reason}"
    );
    store(&mut successor, &trades(50, 80)).await.expect("written");
    fatal(store(&mut zombie, &trades(50, 100)).await);
    assert_eq!(database.count("market_data_trades").await, 80);
    // A zombie that lost its connection as well is refused when it comes back.
    end_backends(&database.url);
    let first = store(&mut zombie, &trades(50, 100)).await;
    assert!(matches!(first, Err(SinkError::Retry(_))), "{first:?}");
    fatal(store(&mut zombie, &trades(50, 100)).await);
    assert_eq!(database.count("market_data_trades").await, 80);
}

/// A frozen owner in mid-COPY: no timeout of PostgreSQL ends that, its successor does.
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_owners_backend_is_ended_by_its_successor() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut frozen = assigned(&database.url).await;
    let (is_frozen, wait) = mpsc::sync_channel(1);
    let (thaw, thawed) = mpsc::sync_channel::<()>(1);
    failpoint::arm("store.mid_copy", 1, move || {
        is_frozen.send(()).expect("the test waits");
        // In place, so that another thread goes on with the runtime's connections.
        let _ = tokio::task::block_in_place(|| thawed.recv());
    });
    let writing = tokio::spawn(async move {
        let first = store(&mut frozen, &trades(0, 100)).await;
        let again = store(&mut frozen, &trades(0, 100)).await;
        (first, again)
    });
    tokio::task::block_in_place(|| wait.recv()).expect("frozen in mid-copy");
    let mut settings = common::settings(&database.url);
    settings.takeover = Duration::from_millis(200);
    let mut successor = TimescaleSink::new(settings).expect("valid");
    let began = std::time::Instant::now();
    successor.assign(&[at(Kind::Trade, 0)]).await.expect("assigned");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    store(&mut successor, &trades(0, 60)).await.expect("written");
    drop(thaw);
    let (first, again) = writing.await.expect("no panic");
    assert!(matches!(first, Err(SinkError::Retry(_))), "{first:?}");
    fatal(again);
    assert_eq!(database.count("market_data_trades").await, 60);
}

#[tokio::test]
async fn a_recreated_topic_is_noticed_and_nothing_is_skipped() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut before = assigned(&database.url).await;
    store(&mut before, &trades(0, 10)).await.expect("written");
    let mut settings = common::settings(&database.url);
    settings.topics[0].id = "id-2".to_owned();
    let mut after = TimescaleSink::new(settings).expect("valid");
    let reason = fatal(after.assign(&[at(Kind::Trade, 0)]).await);
    assert!(
        reason.contains("md.trade was recreated") && reason.contains("delete from"),
        "{reason}"
    );
    // The fence stands, and its owner goes on.
    store(&mut before, &trades(10, 20)).await.expect("written");
}

#[tokio::test]
async fn offsets_that_were_skipped_do_not_disturb_the_fence() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut sink = assigned(&database.url).await;
    store(&mut sink, &trades(0, 10)).await.expect("written");
    store(&mut sink, &trades(25, 30)).await.expect("written");
    let fence = "select next_offset || ' ' || held_origin from tapeline_fence";
    assert_eq!(database.text(fence).await, "30 29");
}

#[tokio::test]
async fn without_tables_the_stage_stops_and_says_what_to_do() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let database = Database::new().await;
    let mut own = database.connect().await;
    own.execute("drop table tapeline_fence").await.expect("dropped");
    let reason = fatal(sink(&database.url).assign(&[at(Kind::Trade, 0)]).await);
    assert!(reason.contains("tapeline migrate"), "{reason}");
}

#[tokio::test]
async fn a_database_that_is_not_there_is_waited_for() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let mut sink = sink("postgres://tapeline:tapeline@127.0.0.1:1/none");
    let refused = sink.assign(&[at(Kind::Trade, 0)]).await;
    assert!(matches!(refused, Err(SinkError::Retry(_))), "{refused:?}");
}
