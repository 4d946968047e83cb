//! `tapeline lag`.

use anyhow::Result;
use clap::Args;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::host::{clear, look};
use crate::config::Config;
use crate::lag::{GroupLag, PartitionLag, lag};
use crate::venue::driver::{Clock as _, SystemClock};
use crate::wiring::{Context, StageName};

/// How far stages are behind.
#[derive(Debug, Args)]
pub struct LagArgs {
    /// Only these stages.
    #[arg(long, value_delimiter = ',')]
    pub stage: Vec<StageName>,
    /// One JSON object (a line each time, with --watch).
    #[arg(long)]
    pub json: bool,
    /// Look again every two seconds, until stopped.
    #[arg(long)]
    pub watch: bool,
}

/// Prints the lag, once or until a signal.
pub(super) async fn run(config: Config, args: LagArgs) -> Result<()> {
    let context = Context::new(config, &CancellationToken::new()).await?;
    let clock = SystemClock::default();
    look(args.watch, async || {
        let now = clock.receive_time(None).unwrap_or_default();
        let groups = lag(&context, &args.stage, now).await?;
        if args.json {
            println!("{}", json!({"time": now, "groups": groups}));
            return Ok(());
        }
        if args.watch {
            clear(now);
        }
        print!("{}", table(&groups));
        Ok(())
    })
    .await
}

fn age(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "?".to_owned(), |seconds| format!("{seconds:.1}"))
}

fn table(groups: &[GroupLag]) -> String {
    let mut out = String::new();
    for group in groups {
        let GroupLag { stage, records, seconds, members, never_committed, partitions, .. } = group;
        let mut notes = Vec::new();
        if *members == Some(0) {
            notes.push("nobody reads it now".to_owned());
        }
        if *never_committed == partitions.len() {
            notes.push("nothing was ever committed".to_owned());
        }
        let notes =
            if notes.is_empty() { String::new() } else { format!("  ({})", notes.join("; ")) };
        out.push_str(&format!("{stage}: {records} records, {} s behind{notes}\n", age(*seconds)));
        let width = partitions.iter().map(|lag| lag.topic.len()).max().unwrap_or_default();
        for lag in partitions {
            let PartitionLag { topic, partition, committed, log_end, records, lost, .. } = lag;
            let committed =
                committed.map_or_else(|| "never".to_owned(), |offset| offset.to_string());
            let lost =
                if *lost > 0 { format!("  {lost} LOST to retention") } else { String::new() };
            let seconds = age(lag.seconds);
            out.push_str(&format!(
                "  {topic:width$} {partition:>4} {committed:>12} of {log_end:>12} {records:>10} records {seconds:>9} s{lost}\n"
            ));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_never_committed_and_what_was_lost_is_said() {
        let never = PartitionLag {
            topic: "md.trade".to_owned(),
            partition: 0,
            committed: None,
            log_start: 5,
            log_end: 9,
            records: 4,
            lost: 0,
            seconds: None,
        };
        let lost = PartitionLag { committed: Some(2), lost: 3, partition: 1, ..never.clone() };
        let group = |partitions: Vec<PartitionLag>| GroupLag {
            stage: "store".to_owned(),
            group: "main-store".to_owned(),
            members: Some(0),
            records: 4,
            seconds: None,
            never_committed: partitions.iter().filter(|p| p.committed.is_none()).count(),
            partitions,
        };
        let text = table(&[group(vec![never.clone()])]);
        assert!(text.contains("nobody reads it now; nothing was ever committed"), "{text}");
        assert!(text.contains("never of"), "{text}");
        let text = table(&[group(vec![never, lost])]);
        assert!(text.contains("3 LOST to retention") && !text.contains("ever committed"), "{text}");
    }
}
