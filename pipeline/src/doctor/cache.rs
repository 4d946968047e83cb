//! Redis: memory, eviction, hits.

use std::collections::HashMap;

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Patient;
use super::memory;
use super::report::{Severity, Target, size};

/// Share of its memory that Redis may use before something is said.
const FULL: f64 = 0.9;
/// Share of look-ups that should find something (R4), and how many make it a figure.
const HITS: (f64, f64) = (0.95, 10_000.0);
/// Memory used by the process beside what it holds, where it holds more than this.
const FRAGMENTED: (f64, i64) = (1.5, 1 << 30);

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let client = patient.config.redis.client()?;
    let mut cache = match client.get_multiplexed_async_connection().await {
        Ok(cache) => cache,
        Err(error) => {
            let message = format!("cannot be reached, see redis.url: {error}");
            patient.report.find("redis", Severity::Critical, message);
            return Ok(());
        }
    };
    let text: String = redis::cmd("INFO").query_async(&mut cache).await.context("INFO")?;
    let info: HashMap<&str, &str> = text.lines().filter_map(|line| line.split_once(':')).collect();
    let number = |name: &str| info.get(name).and_then(|value| value.trim().parse::<f64>().ok());
    let used = number("used_memory").unwrap_or(0.0) as i64;
    let most = number("maxmemory").unwrap_or(0.0) as i64;
    let version = info.get("redis_version").copied().unwrap_or("unknown").to_owned();
    let policy = info.get("maxmemory_policy").copied().unwrap_or("unknown").to_owned();
    let figures = json!({"version": version, "used": used, "maxmemory": most, "policy": policy});
    let message = format!("{version}, {} in use", size(used));
    patient.report.find("redis", Severity::Ok, message).with_figures(figures);
    room(patient, used, most, &policy);
    let (hits, misses) =
        (number("keyspace_hits").unwrap_or(0.0), number("keyspace_misses").unwrap_or(0.0));
    if hits + misses >= HITS.1 {
        let share = hits / (hits + misses);
        // readers of symbols that do not trade miss too: no more than advice
        let severity = if share < HITS.0 { Severity::Advice } else { Severity::Ok };
        let message = format!("{:.1} % of look-ups find something", share * 100.0);
        patient.report.find("redis hits", severity, message).with_figures(json!({"share": share}));
    }
    for (name, what) in [
        ("evicted_keys", "values were dropped for lack of memory"),
        ("rejected_connections", "connections were refused"),
    ] {
        let count = number(name).unwrap_or(0.0);
        if count > 0.0 {
            patient.report.find("redis", Severity::Warning, format!("{count} {what}"));
        }
    }
    let fragmentation = number("mem_fragmentation_ratio").unwrap_or(1.0);
    if fragmentation > FRAGMENTED.0 && used > FRAGMENTED.1 {
        let message = format!("takes {fragmentation:.1} times the memory it uses");
        let finding = patient.report.find("redis", Severity::Advice, message);
        finding.advise(Target::Redis, "activedefrag yes", true);
    }
    Ok(())
}

fn room(patient: &mut Patient<'_>, used: i64, most: i64, policy: &str) {
    if most == 0 {
        let message = "no limit: it grows until the machine has no memory left";
        let machine = patient.scope.machine.or_else(|| memory::of_database(patient.config));
        let limit = machine.map_or(1 << 30, |machine| machine.memory / 8);
        let finding = patient.report.find("redis maxmemory", Severity::Advice, message.to_owned());
        finding.advise(Target::Redis, format!("maxmemory {}mb", limit >> 20), false);
    } else if used as f64 > FULL * most as f64 {
        let message = format!("{} of {} are used", size(used), size(most));
        let finding = patient.report.find("redis maxmemory", Severity::Warning, message);
        finding.advise(Target::Redis, format!("maxmemory {}mb", (most * 2) >> 20), false);
    }
    if policy == "noeviction" || policy.starts_with("allkeys") {
        let message = match policy {
            "noeviction" => {
                "noeviction: when it is full the cache stage waits instead of dropping what expires next"
            }
            _ => "allkeys: values without an end of their own may be dropped",
        };
        let finding =
            patient.report.find("redis maxmemory-policy", Severity::Advice, message.to_owned());
        // values may go from then on, also those of others who use this Redis
        finding.advise(Target::Redis, "maxmemory-policy volatile-ttl", false);
    }
}
