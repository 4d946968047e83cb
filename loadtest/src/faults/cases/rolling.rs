//! A rolling upgrade: two versions of every stage side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use rdkafka::Message as _;
use rdkafka::message::Headers as _;
use tapeline::kafka;
use tapeline_schemas::{Kind, headers};

use super::super::feed::Mix;
use super::super::rig::{How, Rig};
use super::super::{Outcome, Run};
use super::{RATE, SETTLE, taken};

/// Two processes of each stage share the partitions and are replaced one by one.
pub(crate) async fn rolling(run: Arc<Run>) -> Result<Outcome> {
    let rig = Rig::new(run.site(), "rolling").await?;
    let old = How { binary: run.old.clone(), ..How::default() };
    let new = How::default();
    // Without an older binary the two differ in what they were told, and judge differently.
    let mut before = rig.stages.clone();
    if run.old.is_none() {
        before.validate.price_jump_deviations += 1;
    }
    let (old, new) = ((&old, &before), (&new, &rig.stages));
    let mut members = Vec::new();
    let mut beside = Vec::new();
    for _ in 0..2 {
        for stage in ["validate", "store"] {
            members.push((stage, rig.start_with(stage, old.0, old.1)?));
        }
        // An older binary may add candles of which the ledger is told nothing yet (before migration 3).
        match run.old {
            Some(_) => beside.push(rig.start_with("cache,candles", new.0, new.1)?),
            None => members.push(("cache,candles", rig.start_with("cache,candles", old.0, old.1)?)),
        }
    }
    let flow = rig.feed(run.seed, Mix::default())?.flow(RATE);
    for (_, member) in &members {
        taken(member, 0).await?;
    }
    let mut replaced = 0;
    // Forth, and back for whoever finds a fault in the new version, and forth again.
    for (how, config) in run.pick(&[new][..], &[new, old, new]) {
        for (stage, member) in &mut members {
            let started = rig.start_with(stage, how, config)?;
            taken(&started, 0).await?;
            std::mem::replace(member, started).stop().await?;
            replaced += 1;
        }
    }
    let mut feed = flow.stop().await?;
    let mut running: Vec<_> = members.iter_mut().map(|(_, member)| member).collect();
    running.extend(&mut beside);
    let (verdict, recovered) = rig.settle(&mut feed, &mut running, SETTLE).await?;
    let said = rules_in_headers(&rig).await?;
    let counted = rules_in_ledger(&rig).await?;
    ensure!(said == counted, "the headers name the rules {said:?}, the ledger {counted:?}");
    ensure!(said.len() == 2, "two versions judged, and the headers name the rules {said:?}");
    drop((members, beside));
    rig.finish_if(&verdict).await?;
    let which = match &run.old {
        Some(_) => "validate and store of an older binary and of this one",
        None => "one binary with two settings; no older one was given (--old)",
    };
    let rules = said.into_iter().collect::<Vec<_>>().join(" and ");
    let notes = vec![format!("{which}: rules {rules}, in headers and ledger")];
    Ok(Outcome { runs: replaced, verdict, recovered, notes, skipped: None })
}

/// The rules that the checked trades name.
async fn rules_in_headers(rig: &Rig) -> Result<BTreeSet<String>> {
    let topic = rig.context.sink_topics([Kind::Trade])?.remove(0);
    let settings = rig.config.kafka.clone();
    tokio::task::spawn_blocking(move || {
        let mut rules = BTreeSet::new();
        kafka::scan(&settings, &topic, |message| {
            let all = message.headers().into_iter().flat_map(|headers| headers.iter());
            let named = all.filter(|header| header.key == headers::RULES).last();
            let named = named.and_then(|header| header.value).unwrap_or_default();
            rules.insert(String::from_utf8_lossy(named).into_owned());
        })?;
        Ok(rules)
    })
    .await?
}

/// The rules that the ledger's batches of trades name.
async fn rules_in_ledger(rig: &Rig) -> Result<BTreeSet<String>> {
    let sql = "select distinct unnest(string_to_array(rules, ',')) from tapeline_ledger
        where topic like '%.trade'";
    let rules: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut rig.database().await?).await?;
    Ok(rules.into_iter().collect())
}
