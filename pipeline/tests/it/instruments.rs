//! The table of instruments (T12), from the venues' tables as a playback serves them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;

use serde_json::Value;
use tapeline::playback::{self, Recording, Speed};

use crate::common::Pipeline;
use crate::look;
use crate::tape::{VENUES, recordings};

/// Runs the binary on the test's database, with every venue's REST interface at the playback.
async fn tapeline(pipeline: &Pipeline, rest: &BTreeMap<String, String>, words: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
    command
        .args(words)
        .env("TAPELINE__DATABASE__URL", &pipeline.context.config.database.url)
        .env("TAPELINE__LOG__LEVEL", "error");
    for (venue, url) in rest {
        command.env(format!("TAPELINE__CONNECT__VENUES__{venue}__REST_URL"), url);
    }
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("joins");
    let output = output.expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_every_venue_lists_is_kept_once_and_what_others_know_of_it_stays() {
    let Some(dir) = recordings() else { return };
    let pipeline = Pipeline::new("instruments").await;
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let handle = playback::serve(&dir, &VENUES, listen, Speed::Max).await.expect("playback");
    let rest: BTreeMap<_, _> =
        VENUES.map(|venue| (venue.to_owned(), handle.rest_url(venue))).into();
    let synced = tapeline(&pipeline, &rest, &["instruments", "sync"]).await;
    assert_eq!(synced.lines().count(), VENUES.len(), "{synced}");
    // All that was subscribed in the recordings is listed, under the names of their settings.
    for venue in VENUES {
        for symbol in Recording::read(&dir, venue).expect("recording").settings().symbols {
            let sql = format!(
                "select count(*) from instruments where exchange = '{venue}' and symbol = '{symbol}'"
            );
            assert_eq!(pipeline.count(&sql).await, 1, "{venue} {symbol}");
        }
    }
    let without = "select exchange from instruments where market <> 'spot' and (expiry_date is null) \
                   <> (market = 'perpetual') group by exchange";
    assert_eq!(look::rows(&pipeline, without).await, Vec::<Vec<String>>::new(), "expiries");
    let option = "select count(*) from instruments where market = 'option' \
                  and (strike_price is null or option_type is null or tick_size is null)";
    assert_eq!(pipeline.count(option).await, 0);
    let mut database = pipeline.database().await;
    let known = "update instruments set sector = 'currencies', name = coalesce(name, 'ours') \
                 where exchange in ('BINANCE', 'UPBIT')";
    sqlx::query(known).execute(&mut database).await.expect("updated");
    let all = "select * from instruments order by exchange, symbol";
    let before = look::rows(&pipeline, all).await;
    let again = tapeline(&pipeline, &rest, &["instruments", "sync", "--venues", "upbit,BINANCE"]);
    let again = again.await;
    assert!(again.lines().count() == 2 && again.lines().all(|l| l.ends_with(" 0 new or changed")));
    assert_eq!(look::rows(&pipeline, all).await, before);
    let words = ["instruments", "list", "--venue", "okx", "--like", "uni-usd-", "--json"];
    let listed = tapeline(&pipeline, &BTreeMap::new(), &words).await;
    let found: Vec<Value> =
        listed.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let swap = found.iter().find(|row| row["market"] == "perpetual").expect("a perpetual");
    assert_eq!((&swap["symbol"], &swap["code"]), (&"UNI-USD-PERP".into(), &"UNI-USD-SWAP".into()));
    assert!(found.iter().all(|row| row["exchange"] == "OKX"));
    handle.shutdown().await;
    pipeline.finish().await;
}
