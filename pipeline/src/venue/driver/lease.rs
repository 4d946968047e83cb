//! Which of several connectors of a venue publishes what must come from one alone: the holder of a lease in Redis
//! (docs/adr/0009-two-connectors.md).

use std::time::Duration;

use redis::Script;
use tapeline_schemas::Kind;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::info;

use super::shared::Shared;

/// A holder asks again after this part of the term.
const ASKED_PER_TERM: u32 = 4;
/// A holder counts this part of the term less than Redis does: it stops before another can begin.
const MARGIN: u32 = 5;

/// What is left of a term is known to this part of it: answers take their time.
const SLACK: u32 = 16;

/// Several connectors of the same symbols.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is held, the same for all that share it.
    pub name: String,
    /// Who asks; no two of them have the same name.
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

/// Asks for the lease for as long as it is polled.
pub(super) async fn hold(lease: Lease, shared: Shared, says: watch::Sender<Holding>) {
    let script = Script::new(include_str!("lease.lua"));
    let mut every = tokio::time::interval(lease.term / ASKED_PER_TERM);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let term = lease.term - lease.term / MARGIN;
    let slack = millis(lease.term / SLACK);
    let mut before: Option<(Instant, i64)> = None;
    // Until then another holds it, as was heard last.
    let mut others_until: Option<Instant> = None;
    loop {
        every.tick().await;
        let asked = Instant::now();
        let answer = ask(&script, &lease, &shared, false).await;
        // What is left of a term shrinks as time passes, unless it is renewed. What follows no answer tells nothing.
        let now = answer.map(|(_, left)| (asked, left));
        let grown = now.zip(before).is_some_and(|((at, left), (at_before, left_before))| {
            left.saturating_add(millis(at - at_before)) > left_before.saturating_add(slack)
        });
        let renewed = u64::from(grown);
        before = now;
        others_until = match answer {
            Some((0, left)) => {
                asked.checked_add(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
            }
            Some(_) => None,
            None => others_until.filter(|until| Instant::now() < *until),
        };
        says.send_modify(|holding| {
            holding.polls += 1;
            match answer {
                Some((0, _)) => {
                    holding.until = None;
                    holding.others_renewed += renewed;
                }
                Some((token, _)) => {
                    if holding.token != token {
                        info!(lease = lease.name, instance = lease.instance, token, "lease taken");
                    }
                    (holding.until, holding.token) = (Some(asked + term), token);
                }
                // Another publishes for as long as it may.
                None if others_until.is_some() => {}
                // Twice is better than not at all: what has an identity is one, the rest is told twice.
                None => (holding.until, holding.token) = (Some(Instant::now() + term), 0),
            }
        });
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Gives the lease up, if it is held.
pub(super) async fn release(lease: &Lease, shared: &Shared) {
    ask(&Script::new(include_str!("lease.lua")), lease, shared, true).await;
}

async fn ask(script: &Script, lease: &Lease, shared: &Shared, give_up: bool) -> Option<(u64, i64)> {
    let mut call = script.key(format!("lease:{}", lease.name));
    call.key(format!("lease:{}:taken", lease.name));
    call.arg(&lease.instance).arg(lease.term.as_millis() as u64).arg(u8::from(give_up));
    shared.call(&call).await
}

/// The lease's state to begin with.
pub(super) fn start(lease: Option<&Lease>) -> (watch::Sender<Holding>, watch::Receiver<Holding>) {
    watch::channel(if lease.is_some() { Holding::none() } else { Holding::alone() })
}
