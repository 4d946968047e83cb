//! `tape`: the generator and every stage at once, broker and database beside them.

use std::time::Instant;

use anyhow::Result;

use super::line::{Generator, Line, WARM_UP};
use super::results::Results;
use super::site::Site;
use super::{Bench, Sizes};
use crate::market::{Faults, Mix, Settings};

/// Share of records sent twice.
const REPEATED: f64 = 0.001;

/// Runs it for trades alone and for a mix of kinds.
pub(crate) async fn run(bench: &Bench, sizes: &Sizes, results: &mut Results) -> Result<()> {
    for round in 0..sizes.tape_rounds {
        for (name, mix) in [("tape", Mix::TRADES), ("tape_mixed", Mix::MIXED)] {
            let settings = Settings { mix, seed: round as u64 + 1, ..Settings::default() };
            let site = Site::new(name, |_| {}).await?;
            let rate = through(&site, &settings, sizes.tape_records).await;
            site.remove().await?;
            let rate = rate?;
            results.add(name, "events/s", rate);
            bench.say(&format!("round {}: {name} {rate:.0} events/s", round + 1));
        }
    }
    Ok(())
}

/// Events a second, from the first that is produced to the last that every stage has taken.
async fn through(site: &Site, settings: &Settings, records: u64) -> Result<f64> {
    let mut line = Line::start(site).await?;
    let faults = Faults { duplicates: REPEATED, ..Faults::default() };
    let mut generator = Generator::new(site, settings, faults)?;
    line.run(&mut generator, WARM_UP, 0).await?;
    let began = Instant::now();
    line.run(&mut generator, WARM_UP + records, 0).await?;
    let rate = records as f64 / began.elapsed().as_secs_f64();
    line.stop().await?;
    Ok(rate)
}
