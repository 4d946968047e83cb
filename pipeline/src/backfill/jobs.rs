//! What there is to do: the holes of the table, or the same times of many symbols.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};
use sqlx::PgConnection;
use tapeline_schemas::{Kind, Micros};

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
}
