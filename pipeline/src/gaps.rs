//! The continuity of feeds: holes, and what became of them, as the store keeps them in `market_data_gaps`.

use anyhow::{Context as _, Result};
use serde::Serialize;
use sqlx::PgConnection;
use tapeline_schemas::{GapState, Micros};

/// Which holes are asked for; everything that is not said is all.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Only those that nothing has filled.
    pub open: bool,
    /// Venue, in any case.
    pub venue: Option<String>,
    /// Symbols, in any case.
    pub symbols: Vec<String>,
    /// Kinds of events by name.
    pub channels: Vec<String>,
}

/// A hole in a symbol's feed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hole {
    /// Venue, upper case.
    pub venue: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Kind of events that may be missing.
    pub channel: String,
    /// Last moment known to be covered, microseconds since the epoch.
    pub from: Micros,
    /// Moment from which the feed is whole again; none while it is not.
    pub to: Option<Micros>,
    /// `opened`, `ended` or `filled`.
    pub state: String,
    /// Why it opened.
    pub cause: String,
    /// What filled it.
    pub filled_by: Option<String>,
}

impl Hole {
    /// Whether something has filled it.
    pub fn is_filled(&self) -> bool {
        self.state == GapState::Filled.name()
    }
}

type Row = (String, String, String, i64, Option<i64>, String, String, Option<String>);

/// The holes, by venue, symbol, channel and time.
pub async fn list(database: &mut PgConnection, wanted: &Wanted) -> Result<Vec<Hole>> {
    let upper = |list: &[String]| -> Option<Vec<String>> {
        (!list.is_empty()).then(|| list.iter().map(|one| one.to_ascii_uppercase()).collect())
    };
    let channels = (!wanted.channels.is_empty()).then_some(&wanted.channels);
    let rows: Vec<Row> = sqlx::query_as(
        "select exchange, symbol, channel, (extract(epoch from from_time) * 1000000)::bigint,
            (extract(epoch from to_time) * 1000000)::bigint, state, cause, filled_by
        from market_data_gaps
        where ($1::text is null or exchange = upper($1))
            and ($2::text[] is null or symbol = any($2))
            and ($3::text[] is null or channel = any($3))
            and (state <> 'filled' or not $4)
        order by exchange, symbol, channel, from_time",
    )
    .bind(&wanted.venue)
    .bind(upper(&wanted.symbols))
    .bind(channels)
    .bind(wanted.open)
    .fetch_all(database)
    .await
    .context("market_data_gaps")?;
    let hole = |(venue, symbol, channel, from, to, state, cause, filled_by): Row| Hole {
        venue,
        symbol,
        channel,
        from: Micros(from),
        to: to.map(Micros),
        state,
        cause,
        filled_by,
    };
    Ok(rows.into_iter().map(hole).collect())
}
