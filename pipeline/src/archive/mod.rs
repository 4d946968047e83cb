//! The archive: days of the database as Parquet in an object store (S3), and the way back.
//!
//! Objects lie as `kind=trade/exchange=KRAKEN/date=2026-01-02/000-0000.parquet`, so that DuckDB,
//! pandas and Spark find them by their folders. A day counts as archived when its manifest is
//! there, which is written after its objects were read back. Rows are compared by their number
//! and by a sum over all of them that does not depend on their order.

mod batch;
mod columns;
mod create;
mod day;
mod encode;
mod export;
mod lanes;
mod list;
mod manifest;
mod numeric;
mod policy;
mod query;
mod read;
mod restore;
mod restored_day;
mod store;
mod text;
mod tuples;
mod unordered;

use anyhow::{Result, bail};
use tapeline_schemas::Kind;

pub(crate) use columns::{ArchivedTable, quoted};
pub(crate) use create::{create, row_sum};
pub use day::{Day, parse_moment};
pub use export::Format;
pub(crate) use lanes::on_lanes;
pub use list::{Archived, list, verify_all};
pub(crate) use manifest::Manifest;
pub use policy::apply_policy;
pub use query::{Answered, Query, query};
pub use read::Wanted;
pub(crate) use read::verify;
pub use restore::{Restore, Restored, export, restore};
pub(crate) use restored_day::restore_day;
pub use store::Store;

/// The kinds whose tables can be archived, and their tables: all that are divided by time. What is
/// the state of now (positions, orders) or one row a hole (gaps) is not. Candles of venues lie in
/// the table of ours, and go with them.
pub fn archived_kinds() -> impl Iterator<Item = (Kind, &'static str)> {
    const KINDS: [Kind; 9] = [
        Kind::Trade,
        Kind::Ticker,
        Kind::Book,
        Kind::Candle,
        Kind::Anomaly,
        Kind::Option,
        Kind::Flow,
        Kind::Prediction,
        Kind::Portfolio,
    ];
    KINDS.into_iter().filter_map(|kind| Some((kind, kind.spec().table?)))
}

/// The kind with this name and its table; an error names those there are.
pub fn archived_kind(name: &str) -> Result<(Kind, &'static str)> {
    match archived_kinds().find(|(kind, _)| kind.name() == name) {
        Some(found) => Ok(found),
        None => {
            let names: Vec<_> = archived_kinds().map(|(kind, _)| kind.name()).collect();
            bail!("kind '{name}' is not archived: expected one of {}", names.join(", "))
        }
    }
}
