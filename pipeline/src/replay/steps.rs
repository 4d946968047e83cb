//! The steps of a replay: each is one of the pipeline's own stages over fixed ranges.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tapeline_schemas::{Kind, Micros};
use tapeline_stages::candle::{DirtyStage, Longer, Minutes, Reviser};
use tapeline_stages::flow::Topic;
use tapeline_stages::messages::OutTopic;
use tapeline_stages::only::Only;
use tapeline_stages::republish::Republish;
use tapeline_stages::sinks::timescale::{TimescaleSettings, TimescaleSink};
use tapeline_stages::store::Store;
use tapeline_stages::validate::Validate;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan};
use super::{Request, Target, shadow};
use crate::kafka::{AssignFrom, Bulk, Fixed, Membership, MessageSink, Progress};
use crate::wiring::{Context, candles, host_as, store_limits, validate_limits, validate_settings};

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Raw records into another topic.
    Republish,
    /// Raw records are judged anew, into the shadow's checked topics.
    Validate,
    /// Events into tables.
    Store,
    /// Trades into minutes.
    Minutes,
    /// Candles into the shadow's table.
    StoreCandles,
    /// Windows that are computed again from the shadow's tables; then what that made is published.
    Revise,
    /// Minutes into longer candles.
    Longer,
}

impl Step {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Step::Republish => "republish",
            Step::Validate => "validate",
            Step::Store => "store",
            Step::Minutes => "candles",
            Step::StoreCandles => "store candles",
            Step::Revise => "revise candles",
            Step::Longer => "longer candles",
        }
    }
}

/// The steps that a request takes.
pub(super) fn of(request: &Request, plan: &Plan) -> Vec<Step> {
    let mut steps = match request.into {
        Target::Store => return vec![Step::Store],
        Target::Topic(_) => return vec![Step::Republish],
        Target::Shadow(_) if request.revalidate => vec![Step::Validate, Step::Store],
        Target::Shadow(_) => vec![Step::Store],
    };
    if plan.topics.iter().any(|topic| topic.kind == Kind::Trade) {
        // A minute that is revised comes after the others, as it does live.
        steps.extend([Step::Minutes, Step::StoreCandles, Step::Revise]);
        steps.extend([Step::Longer, Step::StoreCandles, Step::Revise]);
    }
    steps
}

/// What the steps of one replay share.
pub(super) struct Work<'w> {
    /// The live pipeline.
    pub(super) live: &'w Context,
    /// The shadow's own topics, or the live pipeline.
    pub(super) own: Context,
    pub(super) request: &'w Request,
    /// Id of fences and ledger.
    pub(super) pipeline: String,
    /// What the request itself reads.
    pub(super) asked: &'w Plan,
}

impl Work<'_> {
    fn shadow(&self) -> Option<&str> {
        match &self.request.into {
            Target::Shadow(name) => Some(name),
            Target::Store | Target::Topic(_) => None,
        }
    }

    /// What a step reads, as of now.
    pub(super) async fn plan(&self, step: Step) -> Result<Plan> {
        let request = self.request;
        let whole = |topics: Vec<Topic>| {
            let kafka = self.live.config.kafka.clone();
            tokio::task::spawn_blocking(move || plan::whole(topics, &kafka))
        };
        let kinds = || self.asked.topics.iter().map(|topic| topic.kind);
        match step {
            Step::Republish | Step::Validate => Ok(self.asked.clone()),
            Step::Store if self.shadow().is_none() => Ok(self.asked.clone()),
            Step::Store if request.revalidate => {
                let kinds = kinds().chain([Kind::Anomaly, Kind::Gap]);
                whole(self.own.sink_topics(kinds)?).await?
            }
            Step::Store => {
                // All holes: whether a candle is final depends on those that are open.
                let gaps = whole(self.live.sink_topics([Kind::Gap])?).await??;
                let mut plan = self.asked.clone();
                plan.topics.extend(gaps.topics);
                plan.parts.extend(gaps.parts);
                Ok(plan)
            }
            Step::Minutes if request.revalidate => {
                whole(self.own.sink_topics([Kind::Trade])?).await?
            }
            Step::Minutes => {
                let mut plan = self.asked.clone();
                plan.topics.retain(|topic| topic.kind == Kind::Trade);
                plan.parts.retain(|part| part.topic == plan.topics[0].name);
                Ok(plan)
            }
            Step::StoreCandles | Step::Longer => {
                whole(self.own.sink_topics([Kind::Candle])?).await?
            }
            Step::Revise => whole(vec![self.own.dirty_topic()?]).await?,
        }
    }

    /// Runs a step over what is left of `plan`.
    pub(super) async fn run(
        &self,
        step: Step,
        plan: &Plan,
        progress: &Arc<Progress>,
        stop: CancellationToken,
    ) -> Result<()> {
        let topics = plan.topics.clone();
        let asked = matches!(step, Step::Republish | Step::Validate | Step::Store)
            || (step == Step::Minutes && !self.request.revalidate);
        let fixed = Fixed {
            ranges: plan.ranges(),
            speed: self.request.speed.filter(|_| asked),
            progress: Arc::clone(progress),
        };
        let fixed = Membership::Fixed(fixed);
        let own = &self.own;
        let config = &own.config;
        match step {
            Step::Republish => {
                let lanes = vec![self.republish(plan)?];
                host_as(own, fixed, "replay", topics, validate_limits(config), lanes, stop).await
            }
            Step::Validate => {
                let lanes = vec![(
                    Validate::new(topics.clone(), validate_settings(config)),
                    self.messages()?,
                )];
                host_as(own, fixed, "replay", topics, validate_limits(config), lanes, stop).await
            }
            Step::Store | Step::StoreCandles => {
                let lanes = (0..config.store.connections)
                    .map(|_| Ok((self.only(Store::new()), self.tables(plan)?)))
                    .collect::<Result<Vec<_>>>()?;
                host_as(own, fixed, "replay", topics, store_limits(config), lanes, stop).await
            }
            Step::Minutes => {
                let (stage, sink) = candles::operator::<Minutes>(own, "replay", &topics[0].name)?;
                let lanes = vec![(self.only(stage), sink)];
                host_as(own, fixed, "replay", topics, candles::tier_limits(own), lanes, stop).await
            }
            Step::Longer => {
                let lanes = vec![candles::operator::<Longer>(own, "replay", &topics[0].name)?];
                host_as(own, fixed, "replay", topics, candles::tier_limits(own), lanes, stop).await
            }
            Step::Revise => {
                let name = self.shadow().context("only shadows revise")?;
                let pool = shadow::pool(self.live, name).await?;
                let lanes = vec![(DirtyStage, Reviser::new(pool, &self.pipeline))];
                let limits = candles::reviser_limits(own);
                host_as(own, fixed, "replay", topics, limits, lanes, stop.clone()).await?;
                if stop.is_cancelled() {
                    return Ok(());
                }
                let mut connection = shadow::connect(self.live, name).await?;
                candles::publish_waiting(own, &mut connection).await
            }
        }
    }

    fn only<S>(&self, stage: S) -> Only<S> {
        let from = self.request.from_event_time.map(Micros);
        Only::new(stage, self.request.symbols.clone(), from)
    }

    fn messages(&self) -> Result<MessageSink> {
        Ok(MessageSink::new(
            "replay",
            Bulk::new(&self.own.config.kafka.bulk_producer())?,
            self.own.prefix(),
            self.own.schema_ids.clone(),
            AssignFrom::Committed,
        ))
    }

    fn tables(&self, plan: &Plan) -> Result<TimescaleSink> {
        let config = &self.live.config;
        let mut settings =
            TimescaleSettings::new(&config.database.url, &self.pipeline, plan.identities());
        settings.takeover = Duration::from_millis(config.store.takeover_ms);
        settings.schema = self.shadow().map(shadow::schema);
        TimescaleSink::new(settings).map_err(anyhow::Error::msg)
    }

    fn republish(&self, plan: &Plan) -> Result<(Only<Republish>, MessageSink)> {
        let Target::Topic(target) = &self.request.into else {
            anyhow::bail!("only a topic is published into")
        };
        let partitions = self.request.new_partitions.unwrap_or(plan.topics[0].partitions);
        let sink = self.messages()?.with_topic(OutTopic::Of(plan.topics[0].kind), target);
        Ok((self.only(Republish::new(partitions)), sink))
    }
}
