//! Shadows: a schema with the same tables, and scratch topics for what the stages say to each other.

use anyhow::{Context as _, Result};
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline_stages::sinks::timescale::MIGRATIONS;

use super::plan::Plan;
use crate::kafka::delete_topics;
use crate::migrate;
use crate::wiring::Context;

/// Name of a shadow's schema.
pub(super) fn schema(name: &str) -> String {
    format!("shadow_{name}")
}

/// Prefix of a shadow's scratch topics.
pub(super) fn prefix(context: &Context, name: &str) -> String {
    format!("{}shadow.{name}.", context.prefix())
}

/// Sets where names without a schema are looked for: in the shadow first.
fn search_path(name: &str) -> String {
    format!("set search_path = \"{}\", public; set timezone = 'UTC'", schema(name))
}

/// A connection that sees the shadow's tables.
pub(super) async fn connect(context: &Context, name: &str) -> Result<PgConnection> {
    let mut connection = migrate::connect(&context.config.database.url).await?;
    connection.execute(search_path(name).as_str()).await?;
    Ok(connection)
}

/// A pool that sees the shadow's tables.
pub(super) async fn pool(context: &Context, name: &str) -> Result<PgPool> {
    let path = search_path(name);
    PgPoolOptions::new()
        .max_connections(context.config.database.pool_size)
        .after_connect(move |connection, _| {
            let path = path.clone();
            Box::pin(async move { connection.execute(path.as_str()).await.map(drop) })
        })
        .connect(&context.config.database.url)
        .await
        .context("database of the shadow")
}

/// Makes the shadow's tables, with the migrations of the live ones; harmless where they are there.
pub(super) async fn create(context: &Context, name: &str) -> Result<()> {
    let mut connection = migrate::connect(&context.config.database.url).await?;
    let create = format!("create schema if not exists \"{}\"", schema(name));
    connection.execute(create.as_str()).await?;
    connection.execute(search_path(name).as_str()).await?;
    MIGRATIONS.run(&mut connection).await.with_context(|| format!("tables of shadow {name}"))?;
    // What the log does not hold any more of the holes; the rest follows from it.
    connection
        .execute(
            "insert into market_data_gaps select * from public.market_data_gaps on conflict do nothing",
        )
        .await?;
    connection.close().await?;
    Ok(())
}

/// The context of the shadow's own stages: its scratch topics have as many partitions as the
/// topics it reads.
pub(super) async fn context(context: &Context, name: &str, plan: &Plan) -> Result<Context> {
    let partitions = plan.topics.iter().map(|topic| topic.partitions).max().unwrap_or(1);
    let id = format!("{}/shadow/{name}", context.config.pipeline.id);
    context.beside(prefix(context, name), id, partitions).await
}

/// Removes the scratch topics.
pub(super) async fn remove_topics(context: &Context, name: &str) -> Result<()> {
    let mut kafka = context.config.kafka.clone();
    kafka.topic_prefix = prefix(context, name);
    delete_topics(&kafka).await
}

/// Removes the tables.
pub(super) async fn remove_tables(database: &mut PgConnection, name: &str) -> Result<()> {
    let drop = format!("drop schema if exists \"{}\" cascade", schema(name));
    database.execute(drop.as_str()).await?;
    Ok(())
}
