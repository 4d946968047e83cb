//! What earlier connectors of a venue left: up to when the log covers it, and holes that are still open.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tapeline_schemas::{GapChange, GapState};
use tracing::{info, warn};

use crate::gaps::{Wanted, list};
use crate::kafka::{last_covered, last_gaps};
use crate::venue::Settings;
use crate::venue::driver::VenueConfig;
use crate::wiring::Context;

/// How long the database is given to name the open holes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Says in `venue` where a connector goes on: it opens its holes where the log's cover ends, and ends those that are open.
pub(super) async fn resume(context: &Context, venue: &mut VenueConfig) -> Result<()> {
    venue.left_open = open_holes(context, &venue.venue, &venue.settings).await?;
    let (kafka, name) = (context.config.kafka.clone(), venue.venue.clone());
    let channels = venue.settings.channels.clone();
    let writer = context.config.connect.instance.clone();
    let covered =
        tokio::task::spawn_blocking(move || last_covered(&kafka, &name, &channels, &writer));
    venue.resume_from = covered.await??;
    if !venue.left_open.is_empty() {
        info!(venue = venue.venue, holes = venue.left_open.len(), "holes were left open");
    }
    Ok(())
}

/// The holes of what `settings` name that are open, as the store knows it and the log's tail tells.
pub(super) async fn open_holes(
    context: &Context,
    venue: &str,
    settings: &Settings,
) -> Result<Vec<GapChange>> {
    let asked = tokio::time::timeout(PATIENCE, stored(context, venue, settings)).await;
    let stored = match asked.context("no answer in time").flatten() {
        Ok(holes) => holes,
        Err(error) => {
            let error = format!("{error:#}");
            warn!(venue, error, "only the log's tail tells which holes are open");
            Vec::new()
        }
    };
    let (kafka, venue) = (context.config.kafka.clone(), venue.to_owned());
    let symbols = settings.symbols.clone();
    let mut topics = context.raw_topics()?;
    topics.retain(|topic| settings.channels.contains(&topic.kind));
    let told = tokio::task::spawn_blocking(move || last_gaps(&kafka, &venue, &topics, &symbols));
    Ok(open(stored, told.await??))
}

/// The holes that are open as the store knows it.
async fn stored(context: &Context, venue: &str, settings: &Settings) -> Result<Vec<GapChange>> {
    let mut database = crate::migrate::connect(&context.config.database.url).await?;
    let wanted = Wanted {
        open: true,
        venue: Some(venue.to_owned()),
        symbols: settings.symbols.clone(),
        channels: settings.channels.iter().map(|kind| kind.name().to_owned()).collect(),
    };
    let mut holes = list(&mut database, &wanted).await?;
    holes.retain(|hole| hole.state == GapState::Opened.name());
    let change = |hole: crate::gaps::Hole| GapChange {
        venue: hole.venue,
        symbol: hole.symbol,
        channel: hole.channel,
        state: GapState::Opened,
        from: hole.from,
        to: None,
        cause: hole.cause,
        filled_by: None,
    };
    Ok(holes.into_iter().map(change).collect())
}

/// The holes that are open after all that was told of them.
fn open(stored: Vec<GapChange>, told: Vec<GapChange>) -> Vec<GapChange> {
    let mut open = BTreeMap::new();
    for gap in stored.into_iter().chain(told) {
        let key = (gap.channel.clone(), gap.symbol.clone(), gap.from);
        if gap.state == GapState::Opened {
            open.insert(key, gap);
        } else {
            open.remove(&key);
        }
    }
    open.into_values().collect()
}

#[cfg(test)]
mod tests {
    use tapeline_schemas::Micros;

    use super::*;

    #[test]
    fn what_the_log_tells_comes_behind_what_is_stored() {
        let gap = |from, state| GapChange {
            venue: "X".to_owned(),
            symbol: "A-B".to_owned(),
            channel: "trade".to_owned(),
            state,
            from: Micros(from),
            to: (state != GapState::Opened).then_some(Micros(from)),
            cause: "disconnect".to_owned(),
            filled_by: None,
        };
        let stored = vec![gap(1, GapState::Opened), gap(2, GapState::Opened)];
        let told =
            vec![gap(2, GapState::Ended), gap(3, GapState::Opened), gap(0, GapState::Filled)];
        let from: Vec<i64> = open(stored, told).iter().map(|gap| gap.from.0).collect();
        assert_eq!(from, [1, 3]);
    }
}
