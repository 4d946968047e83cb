//! The indexes of closed chunks are built anew once, whatever became of an earlier attempt.

use std::os::unix::process::ExitStatusExt as _;
use std::process::Output;

use sqlx::{Executor, PgConnection};

use super::place::{Place, count};

const INDEX: &str = "select i.indexrelid::regclass::text from pg_index i
    where i.indisvalid and i.indrelid = (select format('%I.%I', chunk_schema, chunk_name)::regclass
        from timescaledb_information.chunks where hypertable_name = 'market_data_trades')";
const UNFINISHED: &str = "select count(*) from pg_index where not indisvalid";

/// A day of 20 symbols whose trades come by turns.
async fn fill(database: &mut PgConnection) {
    let rows = "insert into market_data_trades (time, exchange, symbol, trade_id, price, amount, side, receive_time,
            origin_partition, origin)
         select t, 'KRAKEN', 'S' || n % 20 || '-USD', n::text, 1, n, 'buy', t, 0, n
         from generate_series(1, 40000) n,
             lateral (select timestamptz '2021-04-17T00:00:00Z' + n * interval '1 second' t) moment";
    database.execute(rows).await.expect("rows");
}

fn lifecycle(place: &Place, failpoint: &str) -> Output {
    let mut command = place.command(&["lifecycle", "run"]);
    for period in ["COMPRESS", "DROP"] {
        command.env(format!("TAPELINE__LIFECYCLE__PERIODS__{period}_AFTER_DAYS"), "36500");
    }
    command.env("TAPELINE__LIFECYCLE__PERIODS__COMPACT_AFTER_DAYS", "1");
    command.env("TAPELINE_FAILPOINTS", failpoint).output().expect("runs")
}

/// A build of the index that is ended in the middle, as by a server that stops: it waits for a writer.
async fn unfinished(place: &Place, database: &mut PgConnection, index: &str) {
    let mut writer = place.database().await;
    writer
        .execute("begin; update market_data_trades set amount = amount where trade_id = '1'")
        .await
        .expect("a writer");
    let mut builder = place.database().await;
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut builder).await.expect("pid");
    let build = format!("reindex index concurrently {index}");
    let building = tokio::spawn(async move { builder.execute(build.as_str()).await });
    while count(database, UNFINISHED).await == 0 {
        assert!(!building.is_finished(), "it was to wait for the writer");
        tokio::task::yield_now().await;
    }
    database
        .execute(format!("select pg_terminate_backend({pid})").as_str())
        .await
        .expect("ends it");
    building.await.expect("joins").expect_err("it was ended");
    writer.execute("rollback").await.expect("rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_chunks_indexes_are_built_anew_once_and_its_rows_stay_s1() {
    let place = Place::new("compact").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    let rows = "select hashtextextended(string_agg(t::text, '|' order by trade_id), 0) from market_data_trades t";
    let before = count(&mut database, rows).await;
    let index: String =
        sqlx::query_scalar(INDEX).fetch_one(&mut database).await.expect("one index");
    let size = format!("select pg_relation_size('{index}')");
    let loose = count(&mut database, &size).await;

    unfinished(&place, &mut database, &index).await;
    let killed = lifecycle(&place, "lifecycle.before_mark");
    assert_eq!(killed.status.signal(), Some(9), "{killed:?}");
    let done = lifecycle(&place, "");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let told = String::from_utf8_lossy(&done.stdout);
    assert!(told.contains(r#""compacted":1"#) && told.contains(r#""archived_days":1"#), "{told}");
    let again = lifecycle(&place, "");
    assert!(String::from_utf8_lossy(&again.stdout).contains(r#""compacted":0"#), "{again:?}");

    let compact = count(&mut database, &size).await;
    assert!(compact * 10 < loose * 7, "{loose} bytes became {compact}");
    assert_eq!(count(&mut database, UNFINISHED).await, 0);
    assert_eq!(count(&mut database, rows).await, before);
    let twice = "insert into market_data_trades select * from market_data_trades limit 1";
    database.execute(twice).await.expect_err("still unique");
    assert!(tapeline::migrate::check(&mut database).await.is_ok(), "no drift");
    place.finish().await;
}
