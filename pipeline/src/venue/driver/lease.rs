//! Which of several connectors of a venue publishes what must come from one alone: the holder of a lease in Redis
//! (docs/adr/0009-two-connectors.md).

use std::time::Duration;

use redis::Script;
use tapeline_schemas::Kind;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use super::backoff;
use super::shared::Shared;

/// A holder asks again after this part of the term.
const ASKED_PER_TERM: u32 = 4;
/// A holder counts this part of the term less than Redis does: it stops before another can begin.
const MARGIN: u32 = 5;

/// What is left of a term is known to this part of it: answers take their time.
const SLACK: u32 = 16;
/// How often it is said that another process has this one's name.
const WARNED_EVERY: Duration = Duration::from_secs(60);

/// Several connectors of the same symbols.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is held, the same for all that share it.
    pub name: String,
    /// Who asks; each of them has a name of its own.
    pub instance: String,
    /// How long it is held without being renewed: the longest time until another takes over.
    pub term: Duration,
}

/// Whether the lease is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Holding {
    /// Until then, and no longer unless it is said again.
    until: Option<Instant>,
    /// The number of this holding; 0 where Redis gave none.
    pub(super) token: u64,
    /// How often it was asked for.
    pub(super) polls: u64,
    /// In how many of those another had renewed it since the one before.
    pub(super) others_renewed: u64,
}

impl Holding {
    /// Alone, for ever.
    pub(super) fn alone() -> Holding {
        let forever = Duration::from_secs(365 * 86_400 * 30);
        Holding { until: Instant::now().checked_add(forever), ..Holding::none() }
    }

    fn none() -> Holding {
        Holding { until: None, token: 0, polls: 0, others_renewed: 0 }
    }

    /// Whether it is held at this moment.
    pub(super) fn holds(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() < until)
    }
}

/// Whether records of this kind come from the holder alone. Trades and venues' candles come from all: each has an
/// identity, and two of the same are one.
pub(super) fn is_held(kind: Kind) -> bool {
    matches!(kind, Kind::Ticker | Kind::Option | Kind::Book)
}

/// One process's claim to a lease. Names are configured, and two processes may have been given the same.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    lease: Lease,
    shared: Shared,
    /// Tells the process from all others.
    process: String,
}

/// What is said of a lease.
#[derive(Debug, Clone, Copy)]
struct Answer {
    /// The number of the own holding, 0 without one.
    token: u64,
    /// Milliseconds that are left of the holder's term.
    left: i64,
    /// Milliseconds for which another process has the name of this one yet.
    namesake_left: i64,
}

/// Another's term, which shrinks as time passes unless it is renewed.
#[derive(Debug)]
struct Term {
    slack: i64,
    before: Option<(Instant, i64)>,
}

impl Term {
    fn new(lease: &Lease) -> Term {
        Term { slack: millis(lease.term / SLACK), before: None }
    }

    /// Whether it was renewed since it was heard of last, where `left` milliseconds of it are left at `at`. What follows
    /// no answer, or no term, tells nothing.
    fn renewed(&mut self, at: Instant, left: Option<i64>) -> bool {
        let now = left.filter(|left| *left > 0).map(|left| (at, left));
        let before = std::mem::replace(&mut self.before, now);
        now.zip(before).is_some_and(|((at, left), (at_before, left_before))| {
            left.saturating_add(millis(at - at_before)) > left_before.saturating_add(self.slack)
        })
    }
}

impl Claim {
    /// A claim that no other process makes.
    pub(super) fn new(lease: Lease, shared: Shared) -> Claim {
        Claim { lease, shared, process: format!("{:016x}", backoff::random()) }
    }

    /// Asks for the lease for as long as it is polled.
    pub(super) async fn hold(self, says: watch::Sender<Holding>) {
        let lease = &self.lease;
        let mut every = tokio::time::interval(lease.term / ASKED_PER_TERM);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut theirs, mut namesakes) = (Term::new(lease), Term::new(lease));
        let mut warned: Option<Instant> = None;
        // Until then another holds it, as was heard last.
        let mut others_until: Option<Instant> = None;
        loop {
            every.tick().await;
            let asked = Instant::now();
            let answer = self.ask(false).await;
            let renewed = theirs.renewed(asked, answer.map(|answer| answer.left));
            // A process that has died keeps its name to the end of its term, and renews nothing.
            if namesakes.renewed(asked, answer.map(|answer| answer.namesake_left))
                && warned.is_none_or(|warned| warned.elapsed() >= WARNED_EVERY)
            {
                warned = Some(asked);
                self.warn_of_namesake();
            }
            others_until = match answer {
                Some(Answer { token: 0, left, .. }) => {
                    asked.checked_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
                }
                Some(_) => None,
                None => others_until.filter(|until| Instant::now() < *until),
            };
            says.send_modify(|holding| match answer {
                // Another publishes for as long as it may.
                None if others_until.is_some() => holding.polls += 1,
                _ => holding.heed(lease, asked, answer, renewed),
            });
        }
    }

    fn warn_of_namesake(&self) {
        warn!(
            lease = self.lease.name,
            instance = self.lease.instance,
            "another process has this connect.instance, and alone may publish tickers and books by that name: \
             give each process a connect.instance of its own and restart this one"
        );
    }

    /// Gives the lease up, if it is held, and the name.
    pub(super) async fn release(&self) {
        self.ask(true).await;
    }

    async fn ask(&self, give_up: bool) -> Option<Answer> {
        let Lease { name, instance, term } = &self.lease;
        let script = Script::new(include_str!("lease.lua"));
        let mut call = script.key(format!("lease:{name}"));
        call.key(format!("lease:{name}:taken")).key(format!("lease:{name}:by:{instance}"));
        call.arg(instance).arg(&self.process).arg(millis(*term)).arg(u8::from(give_up));
        let (token, left, namesake_left) = self.shared.call(&call).await?;
        Some(Answer { token, left, namesake_left })
    }
}

impl Holding {
    /// Takes in what was said when it was `asked`; without an answer, nobody is known to hold it.
    fn heed(&mut self, lease: &Lease, asked: Instant, answer: Option<Answer>, renewed: bool) {
        self.polls += 1;
        let term = lease.term - lease.term / MARGIN;
        match answer {
            Some(Answer { token: 0, .. }) => {
                self.until = None;
                self.others_renewed += u64::from(renewed);
            }
            Some(Answer { token, .. }) => {
                if self.token != token {
                    info!(lease = lease.name, instance = lease.instance, token, "lease taken");
                }
                (self.until, self.token) = (Some(asked + term), token);
            }
            // Twice is better than not at all: what has an identity is one, the rest is told twice.
            None => (self.until, self.token) = (Some(Instant::now() + term), 0),
        }
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The state to begin with, of one that is `shared` or of one who is alone.
pub(super) fn start(shared: bool) -> (watch::Sender<Holding>, watch::Receiver<Holding>) {
    watch::channel(if shared { Holding::none() } else { Holding::alone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_that_was_renewed_is_told_from_one_that_runs_out() {
        let lease = Lease {
            name: "l".to_owned(),
            instance: "a".to_owned(),
            term: Duration::from_millis(3_200),
        };
        let start = Instant::now();
        let heard = |term: &mut Term, at: u64, left: Option<i64>| {
            term.renewed(start + Duration::from_millis(at), left)
        };
        // Of a process that has died: never, also not once it is over or where Redis was silent meanwhile.
        let mut dead = Term::new(&lease);
        for (at, left) in [
            (0, Some(2_400)),
            (800, Some(1_650)),
            (1_600, None),
            (2_400, Some(1)),
            (3_200, Some(0)),
        ] {
            assert!(!heard(&mut dead, at, left), "at {at}");
        }
        assert!(!heard(&mut dead, 4_000, Some(3_200)), "another's term begins");
        assert!(heard(&mut dead, 4_800, Some(3_190)), "it lives");
        assert!(!heard(&mut dead, 5_600, Some(2_390)));
    }
}
