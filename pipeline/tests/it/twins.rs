//! Two connectors for the same symbols: whichever is killed, no trade is lost, and none is there twice (C1).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tapeline::config::VenueConfig;
use tapeline::playback::{self, Handle, Join, Options, Recording, Speed};
use tapeline::venue::{CHANNELS, venue};
use tapeline::wiring::StageName;
use tapeline_schemas::Kind;

use crate::common::{Pipeline, Process, eventually};
use crate::tape::{VENUES, recordings};

/// How often one of the two is killed.
const EVERY: Duration = Duration::from_secs(2);

/// How often the tape is played; `make test-all` takes more.
fn laps() -> u32 {
    std::env::var("TAPELINE_TWIN_LAPS").map_or(1, |laps| laps.parse().expect("a number of laps"))
}

/// Every venue's trades from the playback, and over how many connections they come.
fn trades_of_all(dir: &Path, playback: &Handle) -> (BTreeMap<String, VenueConfig>, u64) {
    let mut connections = 0;
    let venues = VENUES.map(|name| {
        let mut settings = Recording::read(dir, name).expect("recording").settings();
        settings.channels = vec![Kind::Trade];
        let spec = venue(name).expect("known");
        connections += (spec.connector)(settings.clone()).connections().len().max(1) as u64;
        let config = VenueConfig {
            symbols: settings.symbols,
            channels: vec![CHANNELS[0].name().to_owned()],
            ws_url: Some(playback.ws_url(name)),
            rest_url: Some(playback.rest_url(name)),
            ..VenueConfig::default()
        };
        (name.to_owned(), config)
    });
    (venues.into(), connections)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a machine that starts a connector in the time of its tape: `make test-all`"]
async fn of_two_connectors_of_which_one_is_killed_every_two_seconds_no_trade_is_lost_or_doubled() {
    let Some(dir) = recordings() else { return };
    let laps = laps();
    let join = Join::Now;
    let options = Options { join, laps, ..Speed::Times(4.0).into() };
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let playback = playback::serve(&dir, &VENUES, listen, options).await.expect("playback");
    let pipeline = Pipeline::new("twins").await;
    let stages = [StageName::Validate, StageName::Store].map(|stage| pipeline.start(stage));

    let (venues, connections) = trades_of_all(&dir, &playback);
    let start = || {
        let mut command = pipeline.command(&["connect", "--playback"], |config| {
            config.connect.venues.clone_from(&venues);
            config.connect.record.enabled = false;
        });
        Process(command.spawn().expect("connect"))
    };
    let joined = async |before: u64| {
        let all = || async { playback.clients() >= before + connections };
        eventually("every connection is played to", all).await;
    };
    let mut twins = Vec::new();
    for _ in 0..2 {
        let before = playback.clients();
        twins.push(start());
        joined(before).await;
    }
    let (mut kills, mut next) = (0, 0);
    loop {
        tokio::time::sleep(EVERY).await;
        if twins.iter_mut().any(|twin| twin.0.try_wait().expect("waits").is_some()) {
            break;
        }
        let before = playback.clients();
        twins[next].0.kill().expect("killed");
        twins[next] = start();
        kills += 1;
        // The other one is killed next, so this one has to be there by then.
        joined(before).await;
        next = 1 - next;
    }
    assert!(kills >= 2, "{kills}");
    for twin in twins {
        assert!(twin.ended().await.success());
    }

    let expected = std::fs::read_to_string(dir.join("expected.json")).expect("expected.json");
    let expected: serde_json::Value = serde_json::from_str(&expected).expect("json");
    for name in VENUES {
        let trades = expected[name]["trade"].as_i64().unwrap_or(0) * i64::from(laps);
        let sql = format!("select count(*) from market_data_trades where exchange = '{name}'");
        eventually(&format!("{trades} trades of {name}"), || async {
            pipeline.count(&sql).await >= trades
        })
        .await;
    }
    eventually("everything is stored", || crate::tape::all_stored(&pipeline)).await;
    for name in VENUES {
        let trades = expected[name]["trade"].as_i64().unwrap_or(0) * i64::from(laps);
        let sql = format!("select count(*) from market_data_trades where exchange = '{name}'");
        assert_eq!(pipeline.count(&sql).await, trades, "{name} after {kills} kills");
    }
    for stage in stages {
        stage.stop().await;
    }
    playback.shutdown().await;
    pipeline.finish().await;
}
