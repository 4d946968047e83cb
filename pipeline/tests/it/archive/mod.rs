//! What is old leaves the database only for an archive that was read back (S1, S3): real
//! TimescaleDB, a folder, S3, GCS or Azure as object store, real processes to kill.

mod azure;
mod cloud;
mod compact;
mod damaged;
mod gcs;
mod place;
mod s3;

use std::os::unix::process::ExitStatusExt as _;

use sqlx::Executor;
use tapeline::archive::{self, Day};
use tapeline::lifecycle::{self, Action, Step};

pub(crate) use place::{Place, count, fill};
use place::{ROWS, TABLES, everything_old, restore_all, sums};
pub(crate) use s3::{Server, Told, s3};

#[tokio::test(flavor = "multi_thread")]
async fn archive_drop_restore_leaves_row_identical_tables_s3() {
    let place = Place::new("life").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let report = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!(report.dropped_rows, ROWS as u64);
    assert_eq!(count(&mut database, "select sum(rows)::bigint from tapeline_removals").await, ROWS);
    assert_eq!(sums(&mut database).await, vec!["-"; TABLES.len()], "dropped");
    let again = place.database().await;
    drop(database);
    let mut database = again;
    let nothing = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!((nothing.dropped_rows, nothing.archived_days), (0, 0), "nothing is archived twice");
    for checked in archive::verify_all(&place.store(), None).await.expect("reads") {
        assert_eq!(checked.fault, None);
    }
    assert_eq!(restore_all(&place).await, ROWS as u64);
    assert_eq!(sums(&mut database).await, before, "row-identical");
    assert_eq!(restore_all(&place).await, 0, "restoring again adds nothing");
    assert_eq!(sums(&mut database).await, before);
    assert_eq!(
        count(&mut database, "select sum(rows)::bigint from tapeline_additions").await,
        ROWS
    );
    drop(database);
    let mut database = place.database().await;
    let planned = lifecycle::plan(&mut database, &everything_old()).await.expect("a plan");
    let moves = |step: &Step| matches!(step.action, Action::Archive | Action::Drop);
    assert!(!planned.iter().any(moves), "nor is more promised: {planned:?}");
    let kept = lifecycle::run(&mut database, &place.store(), "test", &everything_old())
        .await
        .expect("runs");
    assert_eq!(kept.dropped_rows, 0, "what was restored stays for a while");
    assert_eq!(sums(&mut database).await, before, "compressed, where the edition does that");
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_come_after_their_day_was_dropped_join_it_in_the_archive_s3() {
    let place = Place::new("late").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await[0].clone();
    database
        .execute("create table late as select * from market_data_trades where origin % 100 = 0")
        .await
        .expect("late");
    database.execute("delete from market_data_trades where origin % 100 = 0").await.expect("late");
    let store = place.store();
    let mut config = everything_old();
    config.keep_restored_days = 0;
    lifecycle::run(&mut database, &store, "test", &config).await.expect("runs");
    database.execute("insert into market_data_trades select * from late").await.expect("late");
    drop(database);
    let mut database = place.database().await;
    lifecycle::run(&mut database, &store, "test", &config).await.expect("runs");
    assert_eq!(count(&mut database, "select count(*) from market_data_trades").await, 0);
    let listed = archive::list(&store, Some("trade")).await.expect("lists");
    assert_eq!(listed.iter().map(|day| day.rows).sum::<u64>(), 6_000);
    let mut days: Vec<Day> = listed.iter().map(|listed| listed.day).collect();
    days.dedup();
    assert_eq!(days.len(), listed.len(), "one manifest a day");
    restore_all(&place).await;
    assert_eq!(sums(&mut database).await[0], before);
    let balance =
        "select ((select sum(rows) from tapeline_additions where table_name = 'market_data_trades')
        - (select sum(rows) from tapeline_removals where table_name = 'market_data_trades'))";
    assert_eq!(
        count(&mut database, &format!("{balance}::bigint + 6000")).await,
        6_000,
        "the books balance"
    );
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lifecycle_killed_at_fifty_points_loses_and_doubles_no_row_s3() {
    let place = Place::new("killed").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let before = sums(&mut database).await;
    let points = [
        "archive.reading",
        "archive.after_upload",
        "archive.before_manifest",
        "archive.after_manifest",
        "lifecycle.before_drop",
        "lifecycle.before_commit",
        "lifecycle.after_commit",
    ];
    let (mut killed, mut seed) = (0, 0);
    while killed < 50 {
        assert!(seed < 200, "only {killed} of {seed} runs were killed");
        let (point, pass) = (points[seed % points.len()], 1 + seed / points.len() % 3);
        seed += 1;
        let ended = place.tapeline(&["lifecycle", "run"], &format!("{point}:{pass}"));
        killed += usize::from(ended.status.signal() == Some(9));
        let there = format!(
            "select {} + coalesce((select sum(rows) from tapeline_removals)::bigint, 0)
             - coalesce((select sum(rows) from tapeline_additions)::bigint, 0)",
            TABLES.map(|table| format!("(select count(*) from {table})")).join(" + ")
        );
        assert_eq!(count(&mut database, &there).await, ROWS, "after {point}:{pass}");
        if count(&mut database, "select count(*) from market_data_trades").await == 0 {
            restore_all(&place).await;
            database.execute("truncate tapeline_restores").await.expect("they may go again");
            place.empty();
            assert_eq!(sums(&mut database).await, before, "after {point}:{pass}");
        }
    }
    assert!(place.tapeline(&["lifecycle", "run"], "").status.success());
    assert!(place.tapeline(&["archive", "verify"], "").status.success());
    restore_all(&place).await;
    assert_eq!(sums(&mut database).await, before);
    place.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_day_on_its_way_back_holds_up_nobody_who_needs_a_new_chunk_s1() {
    let place = Place::new("chunk").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    lifecycle::run(&mut database, &place.store(), "test", &everything_old()).await.expect("runs");
    let mut books = place.database().await;
    books.execute("begin; lock table tapeline_additions in share mode").await.expect("locks");
    let arguments = ["restore", "--date", "2021-04-17", "--to-date", "2021-04-19"];
    let mut restoring = place.command(&arguments).spawn().expect("runs");
    // two days are copied, and wait for their place in the books
    let waiting = "select count(*) from pg_locks where not granted
                   and relation = 'tapeline_additions'::regclass";
    while count(&mut database, waiting).await < 2 {
        assert!(restoring.try_wait().expect("a process").is_none(), "the restore has ended");
        tokio::task::yield_now().await;
    }
    let tomorrow = "set statement_timeout = '20s';
        insert into market_data_trades (time, exchange, symbol, trade_id, price, amount, side, receive_time,
            origin_partition, origin)
        values ('2021-05-01', 'KRAKEN', 'S1-USD', 'new', 1, 1, 'buy', now(), 0, 1)";
    database.execute(tomorrow).await.expect("a new chunk");
    books.execute("rollback").await.expect("unlocks");
    assert!(restoring.wait().expect("a process").success());
    assert_eq!(count(&mut database, "select count(*) from market_data_trades").await, 6_001);
    place.finish().await;
}
