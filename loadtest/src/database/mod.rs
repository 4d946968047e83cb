//! `bench-db`: what the database answers, and what its archive takes and gives back, on a table of
//! a hundred million trades.

pub(crate) mod capacity;
mod figures;
mod life;
mod load;
mod place;
mod questions;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Result, bail, ensure};

use self::figures::Figures;
use self::load::Shape;
use self::place::Place;
use crate::bench::interrupted;

/// Trades of a quick run, and of one that is asked for nothing else.
const QUICK_ROWS: u64 = 2_000_000;
const ROWS: u64 = 100_000_000;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct DatabaseArgs {
    /// Trades in the table; 100 million, or 2 million in a quick run.
    #[arg(long, value_parser = clap::value_parser!(u64).range(100_000..=1_000_000_000))]
    rows: Option<u64>,
    /// Small sizes: under 2 minutes, and figures to match.
    #[arg(long)]
    quick: bool,
    /// Where results are written.
    #[arg(long, default_value = "loadtest/results")]
    results: PathBuf,
    /// Keep the database and the archive, to look at them.
    #[arg(long)]
    keep: bool,
}

/// Runs the command; false where a figure is not reached.
pub(crate) async fn run(args: DatabaseArgs) -> Result<bool> {
    ensure!(
        !cfg!(debug_assertions),
        "benchmarks of a debug build say nothing: use `make bench-db`"
    );
    let rows = args.rows.unwrap_or(if args.quick { QUICK_ROWS } else { ROWS });
    let shape = Shape::of(rows);
    let mut figures = Figures::new(args.quick, &shape).await?;
    let began = Instant::now();
    let place = Place::new(rows).await?;
    let outcome = tokio::select! {
        measured = measure(&place, &shape, args.quick, &mut figures) => measured,
        () = interrupted() => Err(anyhow::anyhow!("interrupted")),
    };
    if args.keep {
        eprintln!("bench-db: kept: database {}, folder {}", place.name, place.folder.display());
    } else {
        let removed = place.remove().await;
        outcome.and(removed)?;
    }
    std::fs::create_dir_all(&args.results)?;
    let file = args.results.join("database.json");
    figures.write(&file)?;
    println!("{}\n{}; {:.0} s", figures.table(), file.display(), began.elapsed().as_secs_f64());
    let missed = figures.missed();
    if missed.contains(&life::IDENTICAL) {
        bail!("archive, drop and restore changed the table");
    }
    Ok(missed.is_empty())
}

async fn measure(place: &Place, shape: &Shape, quick: bool, figures: &mut Figures) -> Result<()> {
    load::run(place, shape, figures).await?;
    life::compact(place, shape, figures)?;
    load::settle(place, shape, figures).await?;
    questions::run(place, shape, quick, figures).await?;
    life::run(place, shape, figures).await
}

/// Tells how far it is.
fn say(what: &str) {
    eprintln!("bench-db: {what}");
}
