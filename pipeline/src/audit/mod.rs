//! The audit: whether everything that entered is, exactly once, where it should be.
//!
//! It takes one cut, the fences as of one snapshot of the database, and judges what lies below it
//! (invariants 1 to 7); what is above is on its way. Positions of groups are read before the
//! snapshot and ends of topics after it, so that what is on its way is never called wrong.

mod cache;
mod candles;
mod counts;
mod cut;
mod fold;
mod ledger;
mod log;
mod marks;
mod report;
mod unsettled;

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use futures_util::future::LocalBoxFuture;
use tapeline_schemas::Kind;
use tapeline_stages::flow::{Contract, Topic};

pub use self::fold::{Folded, fold};
pub use self::ledger::{Audit, accounted};
pub use self::report::{Check, PartitionReport, Report};
use crate::config::Config;
use crate::database::reader;
use crate::kafka::describe_all;
use crate::migrate;
use crate::registry_client::RegistryClient;
use crate::wiring::STORED_KINDS;

/// What to look at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Oldest event time of rows and candles, as the database reads times; widened to whole days.
    pub from: Option<String>,
    /// Event time where rows and candles end, exclusive; widened to whole days.
    pub to: Option<String>,
    /// Topics, or kinds; all where none is named.
    pub topics: Vec<String>,
}

/// A kind under audit.
#[derive(Debug, Clone)]
struct Subject {
    kind: Kind,
    /// The topic that the store reads.
    topic: Topic,
    topic_id: String,
    /// Name and id of the raw topic, where there is one.
    raw: Option<(String, String)>,
    /// Whether the checks were asked for; the others are read where a check needs them.
    wanted: bool,
}

/// What every check needs.
struct Auditor {
    config: Arc<Config>,
    subjects: Vec<Subject>,
    registry: Option<RegistryClient>,
}

impl Auditor {
    async fn new(config: &Config, scope: &Scope) -> Result<Auditor> {
        config.kafka.check()?;
        let topics = describe_all(&config.kafka).await?;
        let prefix = &config.kafka.topic_prefix;
        let mut known = Vec::new();
        let mut subjects = Vec::new();
        for kind in STORED_KINDS {
            let spec = kind.spec();
            let (name, raw) = (spec.topic(prefix), spec.raw.then(|| spec.raw_topic(prefix)));
            let state = topics.get(&name).with_context(|| format!("topic {name} is unknown"))?;
            let names = [Some(name.as_str()), raw.as_deref(), Some(kind.name())];
            let wanted = scope.topics.is_empty()
                || scope.topics.iter().any(|asked| names.contains(&Some(asked.as_str())));
            known.extend(names.into_iter().flatten().map(str::to_owned));
            let contract = if spec.raw { Contract::Checked } else { Contract::Plain };
            let raw = raw.map(|raw| {
                let id = topics.get(&raw).map(|state| state.id.clone()).unwrap_or_default();
                (raw, id)
            });
            let topic = Topic { partitions: state.partitions, name, kind, contract };
            subjects.push(Subject { kind, topic, topic_id: state.id.clone(), raw, wanted });
        }
        if let Some(unknown) = scope.topics.iter().find(|asked| !known.contains(asked)) {
            bail!("--topic {unknown} is not of this pipeline, which has {}", known.join(", "));
        }
        let registry = RegistryClient::configured(&config.registry)?;
        Ok(Auditor { config: Arc::new(config.clone()), subjects, registry })
    }

    fn wanted(&self) -> impl Iterator<Item = &Subject> {
        self.subjects.iter().filter(|subject| subject.wanted)
    }

    fn wants(&self, kind: Kind) -> bool {
        self.wanted().any(|subject| subject.kind == kind)
    }
}

/// Audits the pipeline of `config`. An error says that it could not be carried out; whether it
/// found something wrong is in the report.
pub fn run<'a>(config: &'a Config, scope: &'a Scope) -> LocalBoxFuture<'a, Result<Report>> {
    // compiled once, here
    Box::pin(judged(config, scope))
}

async fn judged(config: &Config, scope: &Scope) -> Result<Report> {
    let auditor = Auditor::new(config, scope).await?;
    let before = log::Positions::read(&auditor).await?;
    let mut database = reader(&config.database).await?;
    migrate::check(&mut database).await?;
    let cut = cut::take(&mut database, &auditor, scope).await?;
    let cached = cache::read(&auditor).await?;
    let cut = cut.with_marks(&auditor).await?;
    let mut ledger = ledger::judge(&mut database, &auditor, &cut).await?;
    let sums = ledger.sums.clone();
    let (cut, mut walked) = log::walk(&auditor, cut, before, sums, cached).await?;
    let mut checks = vec![walked.raw_to_checked, ledger.check];
    checks.push(marks::judge(&walked.marks, &ledger.sums));
    checks.push(counts::judge(&mut database, &auditor, &cut).await?);
    if auditor.wants(Kind::Candle) {
        unsettled::add_outbox(&mut database, &mut walked.unsettled).await?;
        checks.push(candles::judge(&mut database, &cut, &walked.unsettled).await?);
    }
    checks.extend(walked.cached.map(cache::Cached::into_check));
    for partition in &mut ledger.partitions {
        partition.take(&walked.partitions);
    }
    Ok(Report::new(cut.into_report(), checks, ledger.partitions))
}
