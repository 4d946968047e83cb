//! What there is to do: the holes of the table, or the same times of many symbols.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Micros, Timeframe};

use super::{Line, MARGIN, Request};
use crate::gaps::{Hole, Wanted, list};
use crate::venue::{VenueSpec, venue, venue_names};
use crate::wiring::Context;

/// One thing to do: a range of a feed, and the holes that it fills.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) symbol: String,
    pub(super) kind: Kind,
    pub(super) from: Micros,
    pub(super) to: Option<Micros>,
    /// Whether this is one hole of the table.
    pub(super) hole: bool,
}

pub(super) type Jobs = Vec<(&'static VenueSpec, Vec<Job>)>;

fn known(name: &str) -> Result<&'static VenueSpec> {
    venue(name)
        .with_context(|| format!("unknown venue `{name}`, expected one of {}", venue_names()))
}

pub(super) fn names(kinds: &[Kind]) -> Vec<String> {
    kinds.iter().map(|kind| kind.name().to_owned()).collect()
}

/// The holes of the table, by venue; and those of venues that are not known here, with that doubt.
pub(super) async fn holes(
    database: &mut PgConnection,
    request: &Request,
) -> Result<(Jobs, Vec<Line>)> {
    let wanted = Wanted {
        open: true,
        venue: request.venue.clone(),
        symbols: request.symbols.clone(),
        channels: names(&request.kinds),
    };
    let mut jobs: BTreeMap<&'static str, Vec<Job>> = BTreeMap::new();
    let mut others = Vec::new();
    for hole in list(database, &wanted).await? {
        let kind = Kind::from_name(&hole.channel).context("channel of a hole")?;
        let Hole { venue: of, symbol, from, to, .. } = hole;
        let job = Job { symbol, kind, from, to, hole: true };
        match known(&of) {
            Ok(spec) => jobs.entry(spec.name).or_default().push(job),
            Err(error) => {
                others.push(Line { doubt: Some(error.to_string()), ..Line::new(&of, &job) });
            }
        }
    }
    let jobs: Result<Jobs> =
        jobs.into_iter().map(|(name, jobs)| Ok((known(name)?, jobs))).collect();
    Ok((jobs?, others))
}

/// The same times of every symbol that is configured and asked for; of a venue that is named, of any symbol.
pub(super) fn ranges(
    context: &Context,
    request: &Request,
    (from, to): (Micros, Micros),
) -> Result<Jobs> {
    let configured = &context.config.connect.venues;
    let mut jobs = Vec::new();
    let venues = match &request.venue {
        Some(name) => vec![name.clone()],
        None => configured.keys().cloned().collect(),
    };
    for name in venues {
        let spec = known(&name)?;
        let own = configured.iter().find(|(key, _)| key.eq_ignore_ascii_case(&name));
        let own = own.map(|(_, venue)| venue.symbols.clone()).unwrap_or_default();
        let asked = |symbol: &String| {
            request.symbols.is_empty()
                || request.symbols.iter().any(|wanted| wanted.eq_ignore_ascii_case(symbol))
        };
        let symbols: Vec<String> = if request.venue.is_some() && !request.symbols.is_empty() {
            request.symbols.clone()
        } else {
            own.into_iter().filter(asked).collect()
        };
        let offered = |kind: &Kind| spec.history.iter().any(|offer| offer.kind == *kind);
        // A venue without any past says so, once a symbol.
        let kinds: Vec<Kind> = request.kinds.iter().copied().filter(offered).collect();
        let kinds = if kinds.is_empty() { vec![Kind::Trade] } else { kinds };
        let of = |symbol: String| {
            let symbol = symbol.to_ascii_uppercase();
            kinds.clone().into_iter().map(move |kind| Job {
                symbol: symbol.clone(),
                kind,
                from,
                to: Some(to),
                hole: false,
            })
        };
        jobs.push((spec, symbols.into_iter().flat_map(of).collect()));
    }
    if jobs.iter().all(|(_, jobs): &(_, Vec<Job>)| jobs.is_empty()) {
        bail!(
            "no symbol to fill: configure some under connect.venues, or name --venue and --symbols"
        );
    }
    Ok(jobs)
}

/// The part of a job that can be done by now, and its end: of what is newer some may still be on its way. A hole is not
/// done in parts.
pub(super) fn old_enough(job: &Job, now: Option<Micros>) -> Option<(Job, Micros)> {
    let to = job.to?;
    let until = now.map_or(to, |now| to.min(now.plus(-MARGIN)));
    let some = until == to || (!job.hole && until >= job.from);
    some.then(|| (Job { to: Some(until), ..job.clone() }, until))
}

/// The times that a job asks for, up to its end `to`: more than its own, which are receive times.
pub(super) fn asked(job: &Job, to: Micros) -> (Micros, Micros) {
    let from = job.from.plus(-MARGIN);
    match job.kind {
        Kind::Trade => (from, to.plus(MARGIN)),
        // The last word on a window comes behind its end, so the one before the first may lack it, too.
        _ => (Timeframe::M1.start(from), to),
    }
}

/// The first and the last minute of each part whose candles a venue must give: those that end within the job, and of
/// its holes also the one that ends right before.
pub(super) fn windows(job: &Job, to: Micros, holes: &[Hole]) -> Vec<(i64, i64)> {
    let before = |hole: &Hole| Some((hole.from.plus(-MARGIN), hole.to?));
    let parts = [(job.from, to)].into_iter().chain(holes.iter().filter_map(before));
    parts.filter_map(|(from, to)| minutes(from, to)).collect()
}

/// The minutes that a venue has closed within a part.
fn minutes(from: Micros, to: Micros) -> Option<(i64, i64)> {
    let minute = |at: Micros| at.0.div_euclid(Timeframe::M1.micros());
    let (first, last) = (minute(from), minute(to) - 1);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_newer_than_the_margin_is_left_for_another_time() {
        let job = |hole| Job {
            symbol: "BTC-USDT".to_owned(),
            kind: Kind::Trade,
            from: Micros(0),
            to: Some(Micros(MARGIN)),
            hole,
        };
        let until = |hole, now: Option<i64>| {
            old_enough(&job(hole), now.map(Micros)).map(|(job, until)| (job.to, until))
        };
        let all = Some((Some(Micros(MARGIN)), Micros(MARGIN)));
        for hole in [true, false] {
            assert_eq!(until(hole, None), all);
            assert_eq!(until(hole, Some(2 * MARGIN)), all);
            assert_eq!(until(hole, Some(MARGIN - 1)), None);
        }
        assert_eq!(until(true, Some(2 * MARGIN - 1)), None);
        let part = Micros(MARGIN - 1);
        assert_eq!(until(false, Some(2 * MARGIN - 1)), Some((Some(part), part)));
    }
    #[test]
    fn the_candle_before_a_hole_is_asked_for_and_must_come() {
        // The last covered moment is right behind minute 9: its last word was still on its way.
        let minute = Timeframe::M1.micros();
        let (from, to) = (Micros(10 * minute + 50_000), Micros(10 * minute + 900_000));
        let job = Job {
            symbol: "BTC-USDT".to_owned(),
            kind: Kind::VenueCandle,
            from,
            to: Some(to),
            hole: true,
        };
        let hole = Hole {
            venue: "BINANCE".to_owned(),
            symbol: job.symbol.clone(),
            channel: job.kind.name().to_owned(),
            from,
            to: Some(to),
            state: "ended".to_owned(),
            cause: "disconnect".to_owned(),
            filled_by: None,
        };
        assert_eq!(asked(&job, to), (Micros(9 * minute), to));
        assert_eq!(windows(&job, to, &[hole]), [(9, 9)]);
        // Of times that are no hole, those that end within them.
        assert_eq!(windows(&job, Micros(12 * minute), &[]), [(10, 11)]);
        let trades = Job { kind: Kind::Trade, ..job };
        assert_eq!(asked(&trades, to), (from.plus(-MARGIN), to.plus(MARGIN)));
    }
}
