//! `memory`: what each stage holds at most, at full speed and while the database is stopped.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use futures_util::TryStreamExt as _;
use tapeline_schemas::{Micros, Side, Trade};

use super::line::{Gate, Generator, Line, WARM_UP};
use super::results::Results;
use super::site::Site;
use super::{Bench, Sizes};
use crate::market::{Faults, Mix, Settings, VENUE, verify_trade};
use crate::proxy::{Proxy, Weather};

/// Records a second that go on arriving while the database is stopped.
const RATE: u64 = 30_000;

/// Runs it.
pub(crate) async fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    let (proxy, site) = Site::behind_a_proxy("memory", |_| {}).await?;
    let outcome = measure(bench, sizes, &site, &proxy, results).await;
    proxy.set(Weather::default());
    site.remove().await?;
    outcome
}

async fn measure(
    bench: &Bench,
    sizes: &Sizes,
    site: &Site,
    proxy: &Proxy,
    results: &mut Results,
) -> Result<()> {
    let settings = Settings { mix: Mix::MIXED, ..Settings::default() };
    let mut line = Line::start(site).await?;
    let mut generator = Generator::new(site, &settings, Faults::default())?;
    let records = WARM_UP + sizes.memory_records;
    line.run(&mut generator, records, 0).await?;
    for stage in &line.stages {
        let peak = stage.peak_mib()?;
        results.add(&format!("rss.{}", stage.name), "MiB", peak);
        bench.say(&format!("memory: {} {peak:.0} MiB at full speed", stage.name));
        stage.forget_peak()?;
    }
    proxy.set(Weather { held: true, ..Weather::default() });
    let gate = Arc::new(Gate::default());
    gate.open();
    let more = RATE * sizes.memory_stopped.as_secs();
    let sending = generator.start(records + more, RATE, Arc::clone(&gate))?;
    tokio::time::sleep(sizes.memory_stopped / 2).await;
    let halfway: Vec<f64> =
        line.stages.iter().map(|stage| stage.peak_mib()).collect::<Result<_>>()?;
    generator.give_back(sending.await??);
    for (stage, halfway) in line.stages.iter_mut().zip(halfway) {
        stage.check()?;
        let peak = stage.peak_mib()?;
        results.add(&format!("rss.{}_database_stopped", stage.name), "MiB", peak);
        results.add(&format!("rss_second_half.{}", stage.name), "MiB", peak - halfway);
        bench.say(&format!(
            "memory: {} {peak:.0} MiB with the database stopped for {:?}, {:.1} MiB of it in the second half",
            stage.name,
            sizes.memory_stopped,
            peak - halfway
        ));
    }
    proxy.set(Weather::default());
    line.finish(gate.sent()).await?;
    line.stop().await?;
    let trades = every_trade_is_whole(site).await?;
    ensure!(trades == gate.sent()[0], "{trades} trades arrived of {}", gate.sent()[0]);
    Ok(())
}

/// Reads the table back: the trades of each symbol without a hole, each with its own sum.
async fn every_trade_is_whole(site: &Site) -> Result<u64> {
    let mut database = site.database().await?;
    let mut rows = sqlx::query_as(
        "select symbol, trade_id, sequence, price::text, amount::text, side, \
         (extract(epoch from time) * 1000000)::bigint \
         from market_data_trades order by symbol, sequence",
    )
    .fetch(&mut database);
    let mut before = (String::new(), 0);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        let (symbol, id, sequence, price, amount, side, time): Row = row;
        let trade = Trade {
            exchange: VENUE.into(),
            symbol: symbol.as_str().into(),
            trade_id: id.as_str().into(),
            price: price.parse()?,
            amount: amount.parse()?,
            side: Side::from_name(&side).with_context(|| format!("side {side}"))?,
            kind: None,
            taker_or_maker: None,
            sequence: Some(sequence),
            venue_time: Micros(time),
            receive_time: Micros(time),
        };
        let number = verify_trade(&trade);
        let number = number.with_context(|| format!("{symbol} {id} is not as it was produced"))?;
        let expected = if before.0 == symbol { before.1 + 1 } else { 1 };
        ensure!(number == expected, "{symbol}: {number} comes where {expected} should");
        before = (symbol, number);
        count += 1;
    }
    Ok(count)
}

type Row = (String, String, i64, String, String, String, i64);
