//! Candles against the stored trades, through the real way.

use std::collections::BTreeMap;

use tapeline::wiring::StageName;
use tapeline_schemas::{Control, GapState, Kind, Micros, Trade};

use crate::common::{Pipeline, eventually};
use crate::look::{self, Seeded, trade};

const MINUTE: i64 = 60_000_000;
/// 2021-04-17T00:00:00Z, a day's start.
const DAY: i64 = 1_618_617_600_000_000;

/// Every candle that the stored trades make, and every stored candle that differs from it.
const DIFFERENT: &str = "
    with frames (timeframe, width) as (values ('1m', interval '1 minute'), ('5m', '5 minutes'),
        ('15m', '15 minutes'), ('1h', '1 hour'), ('4h', '4 hours'), ('1d', '1 day')),
    computed as (
        select exchange, symbol, timeframe, date_bin(width, time, 'epoch') as start,
            (array_agg(price order by time, coalesce(sequence, 0), origin))[1] as open,
            max(price) as high, min(price) as low,
            (array_agg(price order by time desc, coalesce(sequence, 0) desc, origin desc))[1] as close,
            sum(amount) as volume, sum(price * amount) as quote_volume, count(*) as trades_count,
            max(receive_time) as receive_time, date_bin(width, time, 'epoch') + width as close_time
        from market_data_trades cross join frames group by exchange, symbol, timeframe, width, start)
    select t.*, c.* from computed t full join market_data_ohlcv c
        on (c.exchange, c.symbol, c.timeframe, c.time) = (t.exchange, t.symbol, t.timeframe, t.start)
    where (c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades_count, c.receive_time, c.close_time)
        is distinct from (t.open, t.high, t.low, t.close, t.volume, t.quote_volume, t.trades_count,
            t.receive_time, t.close_time)";

/// Says that everything of these venues up to `through` has been published.
async fn complete(pipeline: &Pipeline, venues: &[&str], through: i64) {
    let publisher = pipeline.context.publisher().expect("publisher");
    for venue in venues {
        let through = Control::Complete { venue: (*venue).to_owned(), through: Micros(through) };
        publisher.broadcast(Kind::Trade, &through).await.expect("control");
    }
    publisher.delivered().await.expect("delivered");
}

async fn gap(pipeline: &Pipeline, symbol: &str, state: GapState, from: i64, to: Option<i64>) {
    let feed = ("KRAKEN", symbol, Kind::Trade);
    look::gap(pipeline, feed, state, Micros(from), to.map(Micros)).await;
}

/// Waits until the database holds candles that are as many and as final as `sql` wants.
async fn wait(pipeline: &Pipeline, what: &str, sql: &str) {
    eventually(what, || async { pipeline.count(sql).await == 0 }).await;
}

/// Waits until so many trades are stored.
async fn stored(pipeline: &Pipeline, trades: usize) {
    let sql = format!("select count(*) - {trades} from market_data_trades");
    wait(pipeline, &format!("{trades} trades are stored"), &sql).await;
}

/// Waits until every candle of the stored trades, so many of them, is stored and right.
async fn all_right(pipeline: &Pipeline, trades: usize, what: &str) {
    stored(pipeline, trades).await;
    wait(pipeline, what, &format!("select count(*) from ({DIFFERENT}) as different")).await;
}

/// A market of `minutes` minutes: several trades a minute, prices and amounts with many digits.
fn market(
    seeded: &mut Seeded,
    venues: &[&str],
    symbols: &[&str],
    minutes: i64,
) -> Vec<Trade<'static>> {
    let mut trades = Vec::new();
    for venue in venues {
        for symbol in symbols {
            for number in 0..minutes * 4 {
                let time = DAY + number * MINUTE / 4 + seeded.below(10_000_000) as i64;
                let price = format!("{}.{:018}", 30_000 + seeded.below(50), seeded.below(1 << 50));
                let mut trade = trade(venue, symbol, number, &price, time);
                trade.amount =
                    format!("0.{:018}", seeded.below(1 << 50) + 1).parse().expect("amount");
                // One trade of three has no sequence.
                trade.sequence = (number % 3 != 0).then_some(number);
                trades.push(trade);
            }
        }
    }
    trades.sort_by_key(|trade| trade.venue_time);
    trades
}

/// Puts trades into another order, none further than about `reach` from its place.
fn disorder(seeded: &mut Seeded, trades: &mut [Trade<'_>], reach: usize) {
    trades.chunks_mut(reach).for_each(|some| seeded.shuffle(some));
}

const VENUES: [&str; 2] = ["BINANCE", "KRAKEN"];
const SYMBOLS: [&str; 3] = ["BTC-USD", "ETH-USD", "XRP-USD"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_final_candle_equals_its_stored_trades_disordered_repeated_late_and_across_restarts_invariant_7()
 {
    let pipeline = Pipeline::new("candles").await;
    let mut seeded = Seeded(7);
    let mut trades = market(&mut seeded, &VENUES, &SYMBOLS, 70);
    disorder(&mut seeded, &mut trades, 12);
    // Some come a second time, and every fiftieth is kept back until long after its window.
    let (all, mut late, mut on_time) = (trades.len(), Vec::new(), Vec::new());
    for (number, trade) in trades.into_iter().enumerate() {
        if number % 50 == 49 {
            late.push(trade);
            continue;
        }
        if number % 7 == 0 {
            on_time.push(trade.clone());
        }
        on_time.push(trade);
    }
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let minutes = "select count(*) - 30 from (select 1 from market_data_ohlcv where timeframe = '1m' limit 30) c";
    // Stopped with windows open, and begun again: twice.
    for part in on_time.chunks(on_time.len() / 3 + 1) {
        let candles = pipeline.start(StageName::Candles);
        look::publish(&pipeline, part).await;
        wait(&pipeline, "it is at work", minutes).await;
        candles.stop().await;
    }
    let candles = pipeline.start(StageName::Candles);
    complete(&pipeline, &VENUES, DAY + 24 * 60 * MINUTE).await;
    all_right(&pipeline, all - late.len(), "every candle of what came on time").await;
    wait(&pipeline, "and is final", "select count(*) from market_data_ohlcv where not final").await;
    let before = pipeline.count("select count(*) from market_data_ohlcv where revision > 0").await;
    look::publish(&pipeline, &late).await;
    all_right(&pipeline, all, "late trades are counted too").await;
    let revised = "select count(*) from market_data_ohlcv where revision > 0";
    assert!(pipeline.count(revised).await > before, "a correction raises the revision");
    wait(&pipeline, "the outbox is emptied", "select count(*) from tapeline_candle_outbox").await;
    let incomplete = "select count(*) from market_data_ohlcv where not final";
    assert_eq!(pipeline.count(incomplete).await, 0);
    for stage in [candles, store, validate] {
        stage.stop().await;
    }
    all_right(&pipeline, all, "and nothing more changes").await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_over_an_open_hole_is_incomplete_until_the_hole_is_filled_invariant_7() {
    let pipeline = Pipeline::new("candle_gaps").await;
    let stages = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    let minute = |number: i64| DAY + number * MINUTE;
    let at = |number, id| trade("KRAKEN", "BTC-USD", id, "100.5", minute(number) + 1_000 * id);
    look::publish(&pipeline, &[at(0, 1), at(1, 2)]).await;
    // From the middle of minute 2 to the middle of minute 3 nothing is known.
    let (from, to) = (minute(2) + MINUTE / 2, minute(3) + MINUTE / 2);
    look::publish(&pipeline, &[at(2, 3)]).await;
    gap(&pipeline, "BTC-USD", GapState::Opened, from, None).await;
    gap(&pipeline, "BTC-USD", GapState::Ended, from, Some(to)).await;
    let tail = minute(3) + 50_000_000;
    look::publish(&pipeline, &[trade("KRAKEN", "BTC-USD", 4, "101", tail), at(4, 5)]).await;
    complete(&pipeline, &["KRAKEN"], DAY + 24 * 60 * MINUTE).await;
    all_right(&pipeline, 5, "candles of what is known").await;
    let sql = "select timeframe, time, final from market_data_ohlcv order by 1, 2";
    let whole = || async {
        let rows = look::rows(&pipeline, sql).await;
        rows.iter().map(|row| (row[0].clone(), row[2] == "true")).fold(
            BTreeMap::<String, Vec<bool>>::new(),
            |mut all, (frame, whole)| {
                all.entry(frame).or_default().push(whole);
                all
            },
        )
    };
    let found = whole().await;
    assert_eq!(found["1m"], [true, true, false, false, true]);
    for frame in ["5m", "15m", "1h", "4h", "1d"] {
        assert_eq!(found[frame], [false], "{frame}");
    }
    // What was missed comes, then the word that it is all.
    let missed = [(2, 6), (3, 7)].map(|(number, id)| {
        trade("KRAKEN", "BTC-USD", id, "99.25", minute(number) + 40_000_000 * (4 - number) / 2)
    });
    look::publish(&pipeline, &missed).await;
    gap(&pipeline, "BTC-USD", GapState::Filled, from, Some(to)).await;
    let incomplete = "select count(*) from market_data_ohlcv where not final";
    wait(&pipeline, "every candle is final", incomplete).await;
    all_right(&pipeline, 7, "and has what was missed").await;
    let found = whole().await;
    assert_eq!(found["1m"], [true; 5]);
    for stage in stages {
        stage.stop().await;
    }
    pipeline.finish().await;
}

/// The candles of a recording, as text, when only `venues` of it are played.
async fn candles_of(name: &str, recording: &[Trade<'static>], venues: &[&str]) -> Vec<Vec<String>> {
    let pipeline = Pipeline::with(name, |config| config.kafka.partitions = Some(1)).await;
    let stages = [StageName::Validate, StageName::Store, StageName::Candles]
        .map(|stage| pipeline.start(stage));
    let played: Vec<_> = recording
        .iter()
        .filter(|trade| venues.contains(&trade.exchange.as_ref()))
        .cloned()
        .collect();
    look::publish(&pipeline, &played).await;
    complete(&pipeline, venues, DAY + 24 * 60 * MINUTE).await;
    all_right(&pipeline, played.len(), "all candles are stored").await;
    wait(&pipeline, "all are final", "select count(*) from market_data_ohlcv where not final")
        .await;
    for stage in stages {
        stage.stop().await;
    }
    let sql = "select * from market_data_ohlcv order by exchange, symbol, timeframe, time";
    let rows = look::rows(&pipeline, sql).await;
    pipeline.finish().await;
    rows
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recording_of_2021_gives_with_two_venues_in_one_partition_what_each_alone_gives_invariant_11()
 {
    let mut seeded = Seeded(11);
    let mut recording = market(&mut seeded, &["BINANCE"], &SYMBOLS[..2], 30);
    // The other venue's clock is hours behind: its windows are its own.
    for mut trade in market(&mut seeded, &["KRAKEN"], &SYMBOLS[..2], 30) {
        trade.venue_time = trade.venue_time.plus(-3 * 60 * MINUTE);
        trade.receive_time = trade.venue_time.plus(500);
        recording.push(trade);
    }
    seeded.shuffle(&mut recording);
    recording.sort_by_key(|trade| trade.venue_time.0.rem_euclid(60 * MINUTE));
    let (both, kraken, binance) = tokio::join!(
        candles_of("recorded_both", &recording, &VENUES),
        candles_of("recorded_kraken", &recording, &["KRAKEN"]),
        candles_of("recorded_binance", &recording, &["BINANCE"]),
    );
    assert!(both.len() > 100, "{} candles", both.len());
    assert_eq!(both, [binance, kraken].concat());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_over_an_accepted_loss_are_computed_from_the_store_or_stay_incomplete_invariant_7()
{
    let mut pipeline = Pipeline::new("candles_lost").await;
    let trades = market(&mut Seeded(11), &VENUES, &SYMBOLS, 15);
    let parts: Vec<_> = trades.chunks(trades.len() / 5).collect();
    let [before, untaken, after, unjudged, last] = parts[..] else { panic!("five parts") };
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let candles = pipeline.start(StageName::Candles);
    look::publish(&pipeline, before).await;
    let minutes = "select count(*) - 6 from (select 1 from market_data_ohlcv limit 6) c";
    wait(&pipeline, "it is at work", minutes).await;
    candles.stop().await;
    look::publish(&pipeline, untaken).await;
    stored(&pipeline, before.len() + untaken.len()).await;
    let checked = Kind::Trade.spec().topic(&pipeline.context.config.kafka.topic_prefix);
    look::retain(&pipeline, &checked, 0).await;
    pipeline.context.accept_loss = true;
    let candles = pipeline.start(StageName::Candles);
    look::publish(&pipeline, after).await;
    let end_of = |trades: &[Trade<'_>]| trades.last().map_or(0, |trade| trade.venue_time.0);
    complete(&pipeline, &VENUES, end_of(after) - 2 * MINUTE).await;
    let released = format!(
        "select count(*) from ({DIFFERENT} and t.timeframe = '1m' and t.start < to_timestamp({})) as different",
        end_of(after) / 1_000_000 - 180
    );
    wait(&pipeline, "what the store has is in the candles", &released).await;

    validate.stop().await;
    let taken = before.len() + untaken.len() + after.len();
    stored(&pipeline, taken).await;
    look::publish(&pipeline, unjudged).await;
    look::retain(&pipeline, &look::raw_topic(&pipeline, Kind::Trade), 0).await;
    let validate = pipeline.start(StageName::Validate);
    look::publish(&pipeline, last).await;
    complete(&pipeline, &VENUES, DAY + 24 * 60 * MINUTE).await;
    all_right(&pipeline, taken + last.len(), "every candle of what is stored").await;
    // Only around what nobody has is a minute incomplete.
    let gone =
        (end_of(after) / 1_000_000, unjudged.last().map_or(0, |t| t.venue_time.0) / 1_000_000);
    let incomplete = "select count(*) from market_data_ohlcv where timeframe = '1m' and not final";
    assert!(pipeline.count(incomplete).await > 0, "minutes over the loss say so");
    let far = format!(
        "{incomplete} and (time < to_timestamp({}) or time > to_timestamp({}))",
        gone.0 - 120,
        gone.1 + 120
    );
    wait(&pipeline, "the others are final", &far).await;
    let report = look::audited(&pipeline).await;
    assert!(report.ok, "{report:?}");
    for stage in [validate, store, candles] {
        stage.stop().await;
    }
    pipeline.finish().await;
}
