//! A venue's candles beside ours, and what is told where they differ.

use tapeline::wiring::StageName;
use tapeline_schemas::{
    Candle, CandleSource, Control, GapState, Kind, Micros, Money, Timeframe, Wide, encode,
};

use crate::common::{Pipeline, eventually};
use crate::look::{self, trade};

const MINUTE: i64 = 60_000_000;
/// 2021-04-17T00:00:00Z, a day's start.
const DAY: i64 = 1_618_617_600_000_000;
const KEY: &str = "BINANCE:BTC-USD";

fn minute(number: i64) -> i64 {
    DAY + number * MINUTE
}

/// A candle of one price, as a venue says it.
fn candle(number: i64, price: &str, volume: &str, is_final: bool) -> Candle<'static> {
    let money = |text: &str| text.parse::<Money>().expect("money");
    let open_time = Micros(minute(number));
    let price = money(price);
    Candle {
        exchange: "BINANCE".into(),
        symbol: "BTC-USD".into(),
        timeframe: "1m".into(),
        source: CandleSource::Venue,
        open_time,
        close_time: Timeframe::M1.end(open_time),
        open: price,
        high: price,
        low: price,
        close: price,
        volume: money(volume),
        quote_volume: Wide::ZERO,
        trades_count: 1,
        is_final,
        revision: 1,
        receive_time: Micros(minute(number + 1)),
    }
}

async fn publish(pipeline: &Pipeline, candles: &[Candle<'static>]) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for candle in candles {
        publisher.event(Kind::VenueCandle, KEY, &encode(candle)).await.expect("published");
    }
    publisher.delivered().await.expect("delivered");
}

async fn gap(pipeline: &Pipeline, state: GapState, from: i64, to: Option<i64>) {
    let feed = ("BINANCE", "BTC-USD", Kind::Trade);
    look::gap(pipeline, feed, state, Micros(from), to.map(Micros)).await;
}

async fn told(pipeline: &Pipeline) -> Vec<Vec<String>> {
    let sql = "select kind, detail from market_data_anomalies \
               where flags = array['candle_differs'] order by time";
    look::rows(pipeline, sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_venues_final_candle_that_differs_from_ours_is_an_anomaly_that_names_the_window() {
    let pipeline = Pipeline::new("venue_candles").await;
    let stages = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    // Of minutes 1 and 2 the venue's candles come before ours are made.
    publish(
        &pipeline,
        &[
            candle(0, "100.5", "9", true),
            candle(1, "100.5", "1", true),
            candle(2, "100.5", "1", false),
            candle(2, "100.5", "1.25", true),
            candle(4, "100.5", "7", true),
        ],
    )
    .await;
    let four = "select count(*) - 4 from market_data_ohlcv where source = 'venue'";
    eventually("they are stored", || async { pipeline.count(four).await == 0 }).await;
    let trades: Vec<_> = (0..6)
        .map(|number| trade("BINANCE", "BTC-USD", number, "100.5", minute(number) + 20_000_000))
        .collect();
    look::publish(&pipeline, &trades[..4]).await;
    let (from, to) = (minute(4), minute(4) + 10_000_000);
    gap(&pipeline, GapState::Opened, from, None).await;
    gap(&pipeline, GapState::Ended, from, Some(to)).await;
    look::publish(&pipeline, &trades[4..]).await;
    let publisher = pipeline.context.publisher().expect("publisher");
    let through = Micros(minute(24 * 60));
    let complete = Control::Complete { venue: "BINANCE".to_owned(), through };
    publisher.broadcast(Kind::Trade, &complete).await.expect("control");
    publisher.delivered().await.expect("delivered");
    let six =
        "select count(*) - 6 from market_data_ohlcv where source = 'tapeline' and timeframe = '1m'";
    eventually("ours are stored", || async { pipeline.count(six).await == 0 }).await;
    // Of minute 3 it comes after ours.
    publish(&pipeline, &[candle(3, "101", "1", true), candle(5, "100.5", "1", true)]).await;
    eventually("two are told", || async { told(&pipeline).await.len() == 2 }).await;
    let volume = "1m window 2021-04-17T00:02:00Z to 2021-04-17T00:03:00Z: volume 1.25 of the venue, 1 of ours";
    let prices = "1m window 2021-04-17T00:03:00Z to 2021-04-17T00:04:00Z: open 101 of the venue, 100.5 of ours; \
                  high 101 of the venue, 100.5 of ours; low 101 of the venue, 100.5 of ours; \
                  close 101 of the venue, 100.5 of ours";
    assert_eq!(told(&pipeline).await, [["venue_candle", volume], ["venue_candle", prices]]);
    // Over the hole of minute 4 ours is not final; once the hole is filled it is, and differs.
    gap(&pipeline, GapState::Filled, from, Some(to)).await;
    eventually("a third is told", || async { told(&pipeline).await.len() == 3 }).await;
    assert!(told(&pipeline).await[2][1].contains("00:04:00Z to"));
    // Neither the first window, which began before its trades did, nor equal ones; and none twice.
    publish(&pipeline, &[candle(2, "100.5", "1.25", true)]).await;
    let seven = "select coalesce(sum(stored + duplicate + conflict), 0)::bigint - 8 from tapeline_ledger \
                 where topic like '%venue_candle'";
    eventually("all are stored", || async { pipeline.count(seven).await == 0 }).await;
    for stage in stages {
        stage.stop().await;
    }
    assert_eq!(told(&pipeline).await.len(), 3);
    let sql = "select time, volume from market_data_ohlcv where source = 'tapeline' \
               and timeframe = '1m' and volume <> 1";
    assert_eq!(look::rows(&pipeline, sql).await, Vec::<Vec<String>>::new(), "ours are ours");
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_candle_that_says_to_be_ours_or_is_no_candle_is_quarantined_and_touches_none_of_ours() {
    let pipeline = Pipeline::new("venue_candles_bad").await;
    let stages = [StageName::Validate, StageName::Store].map(|stage| pipeline.start(stage));
    let sound = candle(0, "100.5", "9", true);
    let off = Micros(minute(0) + 1);
    publish(
        &pipeline,
        &[
            Candle { source: CandleSource::Tapeline, ..sound.clone() },
            Candle { timeframe: "3m".into(), ..sound.clone() },
            Candle { open_time: off, close_time: Timeframe::M1.end(off), ..sound.clone() },
            Candle { high: "100".parse().expect("money"), ..sound.clone() },
            Candle { volume: "-1".parse().expect("money"), ..sound.clone() },
            Candle { trades_count: -1, ..sound.clone() },
            sound,
        ],
    )
    .await;
    let quarantined = "select coalesce(sum(quarantined), 0)::bigint - 6 from tapeline_ledger";
    eventually("six are refused", || async { pipeline.count(quarantined).await == 0 }).await;
    let rows = "select count(*) from market_data_ohlcv where source = 'venue'";
    eventually("one is stored", || async { pipeline.count(rows).await == 1 }).await;
    assert_eq!(pipeline.count("select count(*) from market_data_ohlcv").await, 1);
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}
