//! The matrix of issue 4, a case a row.

mod kills;
mod outages;
mod owners;
mod records;
mod rolling;
mod topics;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::process::Process;
use super::{Case, Outcome};

/// Events a second while something goes wrong.
const RATE: u64 = 300;
/// How long anything may take to happen.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long the end state may take.
const SETTLE: Duration = Duration::from_secs(240);

/// Runs parts of a case side by side, each on a rig of its own: most of each is waiting.
async fn together(
    parts: impl IntoIterator<Item: Future<Output = Result<Outcome>>>,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    for part in futures_util::future::try_join_all(parts).await? {
        outcome.add(part);
    }
    Ok(outcome)
}

/// Waits until `condition` holds.
async fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

/// How often a process said that it took partitions.
fn times_taken(process: &Process) -> usize {
    process.said().matches("partitions taken").count()
}

/// Waits until a process has taken partitions more often than `before`.
async fn taken(process: &Process, before: usize) -> Result<()> {
    let what = format!("{} takes partitions", process.name);
    eventually(&what, || times_taken(process) > before).await
}

/// Every case, in the order.
pub(crate) fn all() -> Vec<Case> {
    vec![
        Case {
            name: "failpoints",
            fault: "store, validate, cache and candles killed at each failpoint",
            own: false,
            run: |run| Box::pin(kills::failpoints(run)),
        },
        Case {
            name: "sigkill",
            fault: "members of real groups killed with SIGKILL at any moment",
            own: false,
            run: |run| Box::pin(kills::groups(run)),
        },
        Case {
            name: "commit",
            fault: "the database's answer to COMMIT lost",
            own: false,
            run: |run| Box::pin(owners::commit_unanswered(run)),
        },
        Case {
            name: "zombie",
            fault: "zombie: SIGSTOP past the session timeout, the peer goes on, SIGCONT",
            own: false,
            run: |run| Box::pin(owners::zombie(run)),
        },
        Case {
            name: "frozen",
            fault: "frozen in mid-COPY",
            own: false,
            run: |run| Box::pin(owners::frozen(run)),
        },
        Case {
            name: "rolling",
            fault: "old and new version side by side (rolling upgrade)",
            own: false,
            run: |run| Box::pin(rolling::rolling(run)),
        },
        Case {
            name: "storm",
            fault: "rebalance storm: join or leave every 1-3 s, both protocols",
            own: false,
            run: |run| Box::pin(owners::storm(run)),
        },
        Case {
            name: "timeouts",
            fault: "validate repeats itself, one delivery times out while the next succeeds",
            own: true,
            run: |run| Box::pin(outages::delivery_timeouts(run)),
        },
        Case {
            name: "broker",
            fault: "broker SIGKILL and restart under load; SIGSTOP; half-open TCP",
            own: true,
            run: |run| Box::pin(outages::broker(run)),
        },
        Case {
            name: "db-stopped",
            fault: "database stopped",
            own: true,
            run: |run| Box::pin(outages::database_stopped(run)),
        },
        Case {
            name: "db-slow",
            fault: "database slow",
            own: false,
            run: |run| Box::pin(outages::database_slow(run)),
        },
        Case {
            name: "deadlock",
            fault: "database deadlock",
            own: true,
            run: |run| Box::pin(outages::deadlock(run)),
        },
        Case {
            name: "disk-full",
            fault: "database out of disk (small tmpfs)",
            own: true,
            run: |run| Box::pin(outages::disk_full(run)),
        },
        Case {
            name: "redis",
            fault: "Redis killed, flushed, restarted",
            own: true,
            run: |run| Box::pin(outages::redis(run)),
        },
        Case {
            name: "registry",
            fault: "registry down, slow, 500, garbage; cold and warm",
            own: false,
            run: |run| Box::pin(records::registry(run)),
        },
        Case {
            name: "hostile",
            fault: "corrupt Avro, wrong magic, oversized, truncated, bit flips; what only the database refuses",
            own: false,
            run: |run| Box::pin(records::hostile(run)),
        },
        Case {
            name: "duplicates",
            fault: "duplicates 0 / 1 / 50 / 100 %, shuffled, late by seconds to days",
            own: false,
            run: |run| Box::pin(records::duplicates(run)),
        },
        Case {
            name: "conflict",
            fault: "one conflicting row already in the table",
            own: false,
            run: |run| Box::pin(records::conflict(run)),
        },
        Case {
            name: "poison",
            fault: "one poison record between good ones, in every codec path",
            own: false,
            run: |run| Box::pin(records::poison(run)),
        },
        Case {
            name: "clock",
            fault: "venue clock an hour ahead",
            own: false,
            run: |run| Box::pin(records::clock_ahead(run)),
        },
        Case {
            name: "recreated",
            fault: "topic deleted and recreated under a running pipeline",
            own: false,
            run: |run| Box::pin(topics::recreated(run)),
        },
        Case {
            name: "retention",
            fault: "retention passes the committed offset",
            own: false,
            run: |run| Box::pin(topics::retention(run)),
        },
    ]
}
