//! Filling holes from the venues' REST interfaces: what is missing is published into the same raw topics under the same
//! keys, then the record that says so.
//!
//! A trade is itself by its identity, so what is published twice is stored once; and a hole is called filled only where
//! that is proved ([`runs::Evidence`]). Killed at any moment, it is done again from the start of that hole. Candles follow
//! by themselves: late trades and the filled hole make their windows dirty (invariant 7).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sqlx::PgConnection;
use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros, Timeframe};
use tokio::time::Instant;

use self::fence::Fence;
use self::fetch::Source;
use crate::gaps::{Hole, Wanted, list};
use crate::kafka::RawPublisher;
use crate::venue::driver::Clock;
use crate::venue::{VenueSpec, venue, venue_names};
use crate::wiring::Context;

mod fence;
mod fetch;
mod runs;
mod stored;

/// How much more than a hole is asked for on both sides: its bounds are receive times, a trade's is the venue's.
const MARGIN: i64 = Timeframe::M1.micros();
/// What the record says of who filled a hole.
const FILLED_BY: &str = "backfill";
/// How long the store is given to take that record.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Kinds whose past some venue gives.
pub const KINDS: [Kind; 2] = [Kind::Trade, Kind::VenueCandle];

/// What to fill.
#[derive(Debug, Clone)]
pub struct Request {
    /// These times of every symbol, holes or not; without them, the holes that the store knows.
    pub range: Option<(Micros, Micros)>,
    /// Only this venue, in any case.
    pub venue: Option<String>,
    /// Only these symbols.
    pub symbols: Vec<String>,
    /// Out of [`KINDS`].
    pub kinds: Vec<Kind>,
}

/// One feed's times.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Span {
    venue: &'static str,
    symbol: String,
    kind: Kind,
    from: Micros,
    to: Micros,
}

impl Span {
    fn key(&self) -> String {
        format!("{}:{}", self.venue, self.symbol)
    }

    /// The holes of this feed that nothing has filled.
    async fn open_holes(&self, database: &mut PgConnection) -> Result<Vec<Hole>> {
        let wanted = Wanted {
            open: true,
            venue: Some(self.venue.to_owned()),
            symbols: vec![self.symbol.clone()],
            channels: names(&[self.kind]),
        };
        list(database, &wanted).await
    }
}

/// Events of one hole or range.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Published.
    pub published: u64,
    /// Stored already.
    pub known: u64,
}

/// What became of one hole or range.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Venue, upper case.
    pub venue: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Kind of events.
    pub channel: String,
    /// Start.
    pub from: Micros,
    /// End; none of a hole that has none yet.
    pub to: Option<Micros>,
    /// Events.
    pub counts: Counts,
    /// Holes that are filled now.
    pub filled: usize,
    /// Whether the store knows that already.
    pub stored: bool,
    /// Why something may still be missing; none where nothing is.
    pub doubt: Option<String>,
}

/// One thing to do: a range of a feed, and the holes that it fills.
#[derive(Debug, Clone)]
struct Job {
    symbol: String,
    kind: Kind,
    from: Micros,
    to: Option<Micros>,
    /// Whether this is one hole of the table.
    hole: bool,
}

/// Fills what is asked for, and tells of each part as it is done. Holes that stay are told with their doubt.
pub async fn run(
    context: &Context,
    request: &Request,
    clock: Arc<dyn Clock>,
    mut tell: impl FnMut(Line) -> Result<()>,
) -> Result<()> {
    let mut database = crate::migrate::connect(&context.config.database.url).await?;
    crate::migrate::check(&mut database).await?;
    let jobs = match request.range {
        None => holes(&mut database, request).await?,
        Some(range) => ranges(context, request, range)?,
    };
    let publisher = context.publisher()?;
    let fence = Fence::new(context)?;
    for (spec, jobs) in jobs {
        let mut symbols: Vec<String> = jobs.iter().map(|job| job.symbol.clone()).collect();
        symbols.dedup();
        let source = match spec.history {
            [] => Err(format!("{} gives no past that fits its feed", spec.name)),
            _ => Source::open(&context.config, spec, symbols, Arc::clone(&clock))
                .await
                .map_err(|error| format!("{error:#}")),
        };
        for job in jobs {
            let (database, publisher, fence) = (&mut database, &publisher, &fence);
            let mut work = Work { database, publisher, fence, spec };
            let line = work.job(source.as_ref(), &job).await;
            stored::done(work.database).await?;
            tell(line?)?;
        }
    }
    Ok(())
}

type Jobs = Vec<(&'static VenueSpec, Vec<Job>)>;

fn known(name: &str) -> Result<&'static VenueSpec> {
    venue(name)
        .with_context(|| format!("unknown venue `{name}`, expected one of {}", venue_names()))
}

fn names(kinds: &[Kind]) -> Vec<String> {
    kinds.iter().map(|kind| kind.name().to_owned()).collect()
}

/// The holes of the table, by venue.
async fn holes(database: &mut PgConnection, request: &Request) -> Result<Jobs> {
    let wanted = Wanted {
        open: true,
        venue: request.venue.clone(),
        symbols: request.symbols.clone(),
        channels: names(&request.kinds),
    };
    let mut jobs: BTreeMap<&'static str, Vec<Job>> = BTreeMap::new();
    for hole in list(database, &wanted).await? {
        let spec = known(&hole.venue)?;
        let kind = Kind::from_name(&hole.channel).context("channel of a hole")?;
        let Hole { symbol, from, to, .. } = hole;
        jobs.entry(spec.name).or_default().push(Job { symbol, kind, from, to, hole: true });
    }
    jobs.into_iter().map(|(name, jobs)| Ok((known(name)?, jobs))).collect()
}

/// The same times of every symbol that is configured and asked for; of a venue that is named, of any symbol.
fn ranges(context: &Context, request: &Request, (from, to): (Micros, Micros)) -> Result<Jobs> {
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
fn old_enough(job: &Job, now: Option<Micros>) -> Option<(Job, Micros)> {
    let to = job.to?;
    let until = now.map_or(to, |now| to.min(now.plus(-MARGIN)));
    let some = until == to || (!job.hole && until >= job.from);
    some.then(|| (Job { to: Some(until), ..job.clone() }, until))
}

struct Work<'a> {
    database: &'a mut PgConnection,
    publisher: &'a RawPublisher,
    fence: &'a Fence,
    spec: &'static VenueSpec,
}

impl Work<'_> {
    async fn job(&mut self, source: Result<&Source, &String>, job: &Job) -> Result<Line> {
        let venue = self.spec.name;
        let mut line = Line {
            venue: venue.to_owned(),
            symbol: job.symbol.clone(),
            channel: job.kind.name().to_owned(),
            from: job.from,
            to: job.to,
            counts: Counts::default(),
            filled: 0,
            stored: true,
            doubt: None,
        };
        line.doubt = self.fill(source, job, &mut line).await?;
        Ok(line)
    }

    /// Does a job and tells in `line` what of it; answers why something may still be missing.
    async fn fill(
        &mut self,
        source: Result<&Source, &String>,
        job: &Job,
        line: &mut Line,
    ) -> Result<Option<String>> {
        let venue = self.spec.name;
        if job.to.is_none() {
            return Ok(Some("the feed has not come back yet".to_owned()));
        }
        let none = || format!("{venue} gives no past of this kind that fits its feed");
        let offer = source.map_err(String::clone).and_then(|source| {
            source.offer(job.kind).map(|offer| (source, offer)).ok_or_else(none)
        });
        let (source, offer) = match offer {
            Ok(offer) => offer,
            Err(doubt) => return Ok(Some(doubt)),
        };
        let Some((job, to)) = old_enough(job, source.now()) else {
            return Ok(Some("too fresh, run again".to_owned()));
        };
        line.to = Some(to);
        let (symbol, kind) = (job.symbol.clone(), job.kind);
        let (from, until) = match kind {
            Kind::Trade => (job.from.plus(-MARGIN), to.plus(MARGIN)),
            // A candle's window is the same by any clock.
            _ => (Timeframe::M1.start(job.from), to),
        };
        let span = Span { venue, symbol, kind, from, to: until };
        stored::turn(self.database, &span).await?;
        // What the feed or another backfill has published counts as known only once it is stored.
        if !self.fence.passed(self.database, &span).await? {
            return Ok(Some("the store is behind, run again".to_owned()));
        }
        let holes = self.unfilled(&span, &job).await?;
        if job.hole && holes.is_empty() {
            // Whoever had the turn before has filled it.
            return Ok(None);
        }
        let filled =
            source.fill(self.database, self.publisher, &span, offer, &mut line.counts).await;
        // What was published before a failure is kept: it is true.
        self.publisher.delivered().await.map_err(anyhow::Error::msg)?;
        let mut evidence = match filled {
            Ok(evidence) => evidence,
            Err(error) => return Ok(Some(format!("{error:#}"))),
        };
        if let Some((first, last)) =
            stored::minutes(job.from, to).filter(|_| job.kind == Kind::VenueCandle)
        {
            evidence.needs(first);
            evidence.needs(last);
        }
        let doubt = evidence.doubt(offer.numbered);
        if doubt.is_none() {
            line.filled = holes.len();
            line.stored = self.close(&span, &holes).await?;
        }
        Ok(doubt)
    }

    /// The holes that have ended within a job's times and that nothing has filled.
    async fn unfilled(&mut self, span: &Span, job: &Job) -> Result<Vec<Hole>> {
        let mut holes = span.open_holes(self.database).await?;
        holes.retain(|hole| {
            let ended = hole.to.is_some() && hole.state == GapState::Ended.name();
            ended && hole.from >= job.from && hole.to <= job.to
        });
        if job.hole {
            holes.retain(|hole| hole.from == job.from);
        }
        Ok(holes)
    }

    /// Says of holes that they are filled, behind all that fills them; whether the store took it in time.
    async fn close(&mut self, span: &Span, holes: &[Hole]) -> Result<bool> {
        for hole in holes {
            let control = Control::Gap(GapChange {
                venue: hole.venue.clone(),
                symbol: hole.symbol.clone(),
                channel: hole.channel.clone(),
                state: GapState::Filled,
                from: hole.from,
                to: hole.to,
                cause: hole.cause.clone(),
                filled_by: Some(FILLED_BY.to_owned()),
            });
            let sent = self.publisher.control(span.kind, &span.key(), &control).await;
            sent.map_err(anyhow::Error::msg)?;
        }
        self.publisher.delivered().await.map_err(anyhow::Error::msg)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = span.open_holes(self.database).await?;
            if !left.iter().any(|hole| holes.iter().any(|closed| closed.from == hole.from)) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL).await;
        }
    }
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
