//! Decoding what connectors kept again, into the raw topics (docs/recording.md).

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, bail, ensure};
use tokio_util::sync::CancellationToken;

use super::{Live, reached};
use crate::playback::recording;
use crate::venue::{Settings, StatsReport, VENUES, driver};
use crate::wiring::Context;

/// Who signs control records: a connector that starts must not take up from where these end.
const WRITER: &str = "from-recording";

/// Publishes what connectors kept in `dir`, decoded as it is now: of the venues that are named, or of all. Everything is
/// delivered when it returns.
pub async fn again(
    context: &Context,
    dir: &Path,
    only: &[String],
    stop: CancellationToken,
) -> Result<BTreeMap<String, StatsReport>> {
    let wanted = |name: &str| match only {
        [] => recording::files(dir, name).is_ok(),
        only => only.iter().any(|only| only.eq_ignore_ascii_case(name)),
    };
    let names: Vec<&str> =
        VENUES.iter().map(|spec| spec.name).filter(|name| wanted(name)).collect();
    ensure!(!names.is_empty(), "no raw frames of a known venue in {}{}", dir.display(), below(dir));
    let publisher = Arc::new(Live {
        raw: context.publisher()?.signed(WRITER),
        context: context.clone(),
        listings: Mutex::default(),
    });
    let mut reports = BTreeMap::new();
    for name in names {
        // Symbols and channels are in the recording.
        let venue = reached(&context.config, name, Settings::new(Vec::new(), Vec::new()))?;
        let (publisher, stop) = (Arc::clone(&publisher), stop.clone());
        let report = driver::again(venue, dir, publisher, Arc::default(), stop);
        reports.insert(name.to_owned(), report.await.with_context(|| name.to_owned())?);
    }
    if let Err(reason) = publisher.raw.delivered().await {
        bail!("not everything could be published: {reason}");
    }
    Ok(reports)
}

/// Where connectors with a name have kept theirs, for people.
fn below(dir: &Path) -> String {
    let kept = |dir: &Path| VENUES.iter().any(|spec| recording::files(dir, spec.name).is_ok());
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut found: Vec<String> = entries
        .map(|entry| entry.path())
        .filter(|path| kept(path))
        .map(|path| path.display().to_string())
        .collect();
    found.sort();
    if found.is_empty() {
        String::new()
    } else {
        format!("; there are some in {}", found.join(", "))
    }
}
