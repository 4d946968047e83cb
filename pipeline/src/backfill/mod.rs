//! Filling holes from the venues' REST interfaces: what is missing is published into the same raw topics under the same
//! keys, then the record that says so.
//!
//! A trade is itself by its identity, so what is published twice is stored once; and a hole is called filled only where
//! that is proved (`runs::Evidence`). Killed at any moment, it is done again from the start of that hole. Candles follow
//! by themselves: late trades and the filled hole make their windows dirty (invariant 7).

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use sqlx::PgConnection;
use tapeline_schemas::{Control, GapChange, GapState, Kind, Micros, Timeframe};
use tokio::time::Instant;

use self::fence::Fence;
use self::fetch::Source;
use self::jobs::{Job, asked, holes, names, old_enough, ranges, windows};
use crate::gaps::{Hole, Wanted, list};
use crate::kafka::RawPublisher;
use crate::venue::VenueSpec;
use crate::venue::driver::Clock;
use crate::wiring::Context;

mod fence;
mod fetch;
mod jobs;
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
    /// The end of what is to be filled; what is asked for may go on behind it.
    end: Micros,
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

impl Line {
    fn new(venue: &str, job: &Job) -> Line {
        Line {
            venue: venue.to_owned(),
            symbol: job.symbol.clone(),
            channel: job.kind.name().to_owned(),
            from: job.from,
            to: job.to,
            counts: Counts::default(),
            filled: 0,
            stored: true,
            doubt: None,
        }
    }
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
        None => {
            let (jobs, others) = holes(&mut database, request).await?;
            others.into_iter().try_for_each(&mut tell)?;
            jobs
        }
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

struct Work<'a> {
    database: &'a mut PgConnection,
    publisher: &'a RawPublisher,
    fence: &'a Fence,
    spec: &'static VenueSpec,
}

impl Work<'_> {
    async fn job(&mut self, source: Result<&Source, &String>, job: &Job) -> Result<Line> {
        let mut line = Line::new(self.spec.name, job);
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
        let (from, until) = asked(&job, to);
        let span = Span { venue, symbol, kind, from, to: until, end: to };
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
        if kind == Kind::VenueCandle {
            for (first, last) in windows(&job, to, &holes) {
                evidence.needs(first);
                evidence.needs(last);
            }
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
