//! Running a replay from its first step to its last, or going on with one.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::plan::{self, Plan};
use super::progress::{Report, Reporter};
use super::steps::{self, Step, Work};
use super::{Entry, Part, Request, Target, book, dropped, shadow};
use crate::kafka::{Admin, Progress, create_raw_topic};
use crate::migrate;
use crate::wiring::Context;

/// Time between two looks at how far it is, each of which is written down.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How a replay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// Whether everything was read; otherwise it was stopped and can go on.
    pub complete: bool,
    /// Whether it made a shadow, which can be compared.
    pub is_shadow: bool,
}

/// What a request would read, without touching anything.
pub async fn preview(context: &Context, request: &Request) -> Result<Vec<Part>> {
    let plan = planned(context, request).await?;
    if matches!(request.into, Target::Store) {
        let mut database = migrate::connect(&context.config.database.url).await?;
        migrate::check(&mut database).await?;
        dropped::refuse(&mut database, context, &plan).await?;
    }
    Ok(plan.parts)
}

async fn planned(context: &Context, request: &Request) -> Result<Plan> {
    request.check()?;
    let (request, kafka) = (request.clone(), context.config.kafka.clone());
    tokio::task::spawn_blocking(move || plan::plan(&request, &kafka)).await?
}

/// Starts a replay and runs it until it is done or `shutdown`.
pub async fn start(
    context: &Context,
    request: Request,
    name: Option<&str>,
    reporter: &mut impl Reporter,
    shutdown: CancellationToken,
) -> Result<Ended> {
    let plan = planned(context, &request).await?;
    let mut database = migrate::connect(&context.config.database.url).await?;
    migrate::check(&mut database).await?;
    let live = context.config.pipeline.id.clone();
    if matches!(request.into, Target::Store) {
        dropped::refuse(&mut database, context, &plan).await?;
    }
    if let Target::Topic(target) = &request.into {
        make_topic(context, &request, &plan, target).await?;
    }
    let name = match &request.into {
        Target::Shadow(shadow) => Some(shadow.as_str()),
        Target::Store | Target::Topic(_) => name,
    };
    let entry = book::begin(&mut database, &live, name, &request, &plan.parts).await?;
    go(context, database, entry, plan, reporter, shutdown).await
}

/// Goes on with a replay that was stopped: the named one, or the only one there is.
pub async fn resume(
    context: &Context,
    name: Option<&str>,
    reporter: &mut impl Reporter,
    shutdown: CancellationToken,
) -> Result<Ended> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    migrate::check(&mut database).await?;
    let entry = book::resume(&mut database, &context.config.pipeline.id, name).await?;
    let plan = again(context, &entry.asked).await?;
    go(context, database, entry, plan, reporter, shutdown).await
}

async fn again(context: &Context, parts: &[Part]) -> Result<Plan> {
    let (parts, kafka) = (parts.to_vec(), context.config.kafka.clone());
    tokio::task::spawn_blocking(move || {
        let live = kafka.topic_prefix.clone();
        let own = parts.iter().find_map(|part| {
            let rest = part.topic.strip_prefix(&format!("{live}shadow."))?;
            let (name, _) = rest.split_once('.')?;
            Some(format!("{live}shadow.{name}."))
        });
        let prefixes: Vec<_> = std::iter::once(live.as_str()).chain(own.as_deref()).collect();
        plan::again(parts, &prefixes, &kafka)
    })
    .await?
}

/// Makes the topic that is published into; one that holds records already is refused.
async fn make_topic(context: &Context, request: &Request, plan: &Plan, target: &str) -> Result<()> {
    let source = &plan.topics[0];
    let partitions = request.new_partitions.unwrap_or(source.partitions);
    let kafka = &context.config.kafka;
    if create_raw_topic(kafka, target, source.kind, partitions).await? {
        return Ok(());
    }
    let (kafka, target) = (kafka.clone(), target.to_owned());
    tokio::task::spawn_blocking(move || {
        let states = Admin::new(&kafka)?.describe(&[target.as_str()])?;
        let state = states.get(&target).context("no such topic")?;
        ensure!(
            state.partitions == partitions,
            "topic {target} is there with {} partitions, not {partitions}: name another, or say --partitions {}",
            state.partitions,
            state.partitions
        );
        let held = plan::held(&kafka, &target, state.partitions)?;
        ensure!(
            held == 0,
            "topic {target} holds {held} records already: a copy goes into an empty topic, so name another"
        );
        Ok(())
    })
    .await?
}

async fn go(
    context: &Context,
    mut database: PgConnection,
    mut entry: Entry,
    asked: Plan,
    reporter: &mut impl Reporter,
    shutdown: CancellationToken,
) -> Result<Ended> {
    let live = context.config.pipeline.id.clone();
    book::lock(&mut database, &live, &entry.name).await?;
    let request = entry.settings.clone();
    let own = match &request.into {
        Target::Shadow(name) => {
            shadow::create(context, name).await?;
            shadow::context(context, name, &asked).await?
        }
        Target::Store | Target::Topic(_) => context.clone(),
    };
    let pipeline = entry.pipeline(&live);
    let work = Work { live: context, own, request: &request, pipeline, asked: &asked };
    "running".clone_into(&mut entry.state);
    let worked = steps(&work, &mut database, &mut entry, reporter, &shutdown).await;
    entry.state = match &worked {
        Ok(true) => "done",
        Ok(false) => "interrupted",
        Err(_) => "failed",
    }
    .to_owned();
    book::save(&mut database, &live, &entry).await?;
    let complete = worked?;
    if complete {
        finish(context, &mut database, &entry, &work.pipeline).await?;
    }
    let is_shadow = matches!(request.into, Target::Shadow(_));
    Ok(Ended { name: entry.name, complete, is_shadow })
}

/// All steps that are left; says whether the last one was finished.
async fn steps(
    work: &Work<'_>,
    database: &mut PgConnection,
    entry: &mut Entry,
    reporter: &mut impl Reporter,
    shutdown: &CancellationToken,
) -> Result<bool> {
    let steps = steps::of(work.request, work.asked);
    let live = &work.live.config.pipeline.id;
    while let Some(&step) = steps.get(entry.step) {
        let mut plan = if entry.positions.is_empty() {
            work.plan(step).await?
        } else {
            again(work.live, &entry.positions).await?
        };
        entry.positions.clone_from(&plan.parts);
        book::save(database, live, entry).await?;
        if !one(work, step, &mut plan, database, entry, reporter, shutdown).await? {
            return Ok(false);
        }
        entry.step += 1;
        entry.positions.clear();
        book::save(database, live, entry).await?;
    }
    Ok(true)
}

/// One step; says whether it was finished.
async fn one(
    work: &Work<'_>,
    step: Step,
    plan: &mut Plan,
    database: &mut PgConnection,
    entry: &mut Entry,
    reporter: &mut impl Reporter,
    shutdown: &CancellationToken,
) -> Result<bool> {
    let progress = Arc::new(Progress::default());
    let begun = plan.clone();
    let running = work.run(step, &begun, &progress, shutdown.clone());
    tokio::pin!(running);
    let live = &work.live.config.pipeline.id;
    loop {
        let ended = tokio::select! {
            biased;
            ended = &mut running => Some(ended),
            () = tokio::time::sleep(LOOK_EVERY) => None,
        };
        plan.advance(&progress.durable());
        let complete = matches!(ended, Some(Ok(()))) && progress.has_ended();
        // Stopped in its last moments, a lane may have given up what it could not write in time.
        let complete = complete && !shutdown.is_cancelled();
        if complete {
            plan.finish();
        }
        entry.positions.clone_from(&plan.parts);
        book::save(database, live, entry).await?;
        let done = plan.parts.iter().map(|part| part.next - part.from).sum();
        let total = plan.parts.iter().map(Part::count).sum();
        reporter.report(Report { what: step.name(), done, total }, ended.is_some());
        if let Some(ended) = ended {
            return ended.map(|()| complete);
        }
    }
}

/// What a finished replay leaves behind: rows, ledger, and the entry.
async fn finish(
    context: &Context,
    database: &mut PgConnection,
    entry: &Entry,
    pipeline: &str,
) -> Result<()> {
    match &entry.settings.into {
        Target::Shadow(name) => shadow::remove_topics(context, name).await,
        Target::Topic(_) => Ok(()),
        Target::Store => {
            sqlx::query("delete from tapeline_fence where pipeline = $1")
                .bind(pipeline)
                .execute(database)
                .await
                .context("fences of the replay")?;
            Ok(())
        }
    }
}
