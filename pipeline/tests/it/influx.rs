//! A second target: InfluxDB, real (S5).

use std::process::Command;

use serde_json::Value;
use tapeline::config::Config;
use tapeline::quarantine::{self, Filter};
use tapeline::wiring::StageName;
use tapeline_schemas::{Micros, Trade};

use crate::common::{Pipeline, Process, eventually};
use crate::look::{self, trade};

const START: i64 = 1_700_000_000_000_000;

/// Debian's InfluxDB, which only this test needs: installed and started where it is missing.
fn influx() -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
    let up = Command::new(script).args(["up", "influxdb"]).output().expect("the script runs");
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let port = std::env::var("TAPELINE_INFLUXDB_PORT").unwrap_or_else(|_| "18086".to_owned());
    format!("http://127.0.0.1:{port}")
}

/// Asks, or tells; the answer's rows.
async fn query(url: &str, database: &str, text: &str) -> Vec<Value> {
    let form = [("db", database), ("q", text)];
    let request = reqwest::Client::new().post(format!("{url}/query"));
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
    let answer: Value = request.send().await.expect(text).json().await.expect(text);
    assert!(answer["results"][0]["error"].is_null(), "{answer}");
    answer["results"][0]["series"][0]["values"].as_array().cloned().unwrap_or_default()
}

async fn points(url: &str, database: &str) -> i64 {
    let rows = query(url, database, "select count(price) from trade").await;
    rows.first().map_or(0, |row| row[1].as_i64().expect("a count"))
}

/// Four in five share their microsecond with others of their symbol; one in ten has an id that is text.
fn made(id: i64) -> Trade<'static> {
    let symbol = format!("S{}-USD", id % 7);
    let mut event = trade("TEST", &symbol, id, "0.1", START + id / 35);
    if id % 10 == 0 {
        event.trade_id = format!("{}-0.1-s-l-{id}", START + id / 35).into();
    }
    event
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs InfluxDB: `make test-all`"]
async fn influxdb_holds_each_trade_once_whenever_its_stage_is_killed_and_what_it_refuses_is_kept_s5()
 {
    let url = influx();
    let pipeline = Pipeline::with("influx", |config| {
        config.influx.url = Some(url.clone());
        config.influx.database = Some(config.pipeline.id.clone());
    })
    .await;
    let database = pipeline.context.config.pipeline.id.clone();
    query(&url, "", &format!("create database {database}")).await;
    let validate = pipeline.start(StageName::Validate);
    let mut sent = 0;
    // The server of the tests takes 256 KiB at once, so a batch of 3,000 goes in parts.
    for place in ["influx.before_write", "influx.mid_write", "influx.after_write"] {
        let trades: Vec<_> = (sent..sent + 3_000).map(made).collect();
        look::publish(&pipeline, &trades).await;
        sent += 3_000;
        let mut command = pipeline.command(&["influx"], |_| {});
        let process = command.env("TAPELINE_FAILPOINTS", place).spawn();
        let status = Process(process.expect("the binary starts")).ended().await;
        assert!(!status.success(), "{place}: it must have killed itself");
    }
    let stage = pipeline.start(StageName::Influx);
    eventually("all trades are there", || async { points(&url, &database).await >= sent }).await;
    stage.stop().await;
    assert_eq!(points(&url, &database).await, sent, "none lost, none doubled");
    let one = "select price, trade_id, sequence from trade where trade_id = '777'";
    let rows = query(&url, &database, one).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0][1], &rows[0][2]), (&Value::from(0.1), &Value::from("777")));

    // Where the server keeps an hour, a trade of another year can never be written.
    let hour = format!("{database}_hour");
    query(&url, "", &format!("create database {hour} with duration 1h")).await;
    let keeps_an_hour = |config: &mut Config| config.influx.database = Some(hour.clone());
    let stage = pipeline.start_member(&pipeline.member(keeps_an_hour), StageName::Influx);
    let far = Micros(4_102_444_800_000_000); // 2100
    let mut new = trade("TEST", "S1-USD", sent + 1, "1.5", far.0);
    new.receive_time = far;
    look::publish(&pipeline, &[made(sent + 1), made(sent + 2), new]).await;
    eventually("the new one is there", || async { points(&url, &hour).await == 1 }).await;
    eventually("the old ones are kept", || async {
        let list = quarantine::list(&pipeline.context, &Filter::default()).await.expect("a list");
        list.iter().filter(|entry| entry.reason == "influx").count() == 2
    })
    .await;
    stage.stop().await;
    validate.stop().await;
    for name in [&database, &hour] {
        query(&url, "", &format!("drop database {name}")).await;
    }
    pipeline.finish().await;
}
