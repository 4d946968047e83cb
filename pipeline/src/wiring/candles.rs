//! Candles: minutes, longer ones, their revision and its outbox, each on its own account.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use tapeline_schemas::{Kind, partition_for, wire};
use tapeline_stages::candle::{
    Candles, DirtyStage, HOLD_MICROS, Longer, Minutes, Outgoing, Publish, Reviser, Settings, Tier,
    publish_outbox,
};
use tapeline_stages::flow::{Limits, Topic};
use tokio_util::sync::CancellationToken;

use super::{Context, host};
use crate::kafka::{AssignFrom, Bulk, Delivery, MessageSink, Producer};
use crate::migrate;

/// Time between two looks at an empty outbox.
const OUTBOX_EVERY: Duration = Duration::from_millis(200);
/// Pause after the outbox could not be emptied.
const OUTBOX_PAUSE: Duration = Duration::from_secs(2);

/// Runs all four until `shutdown`; where one fails, all end.
pub(super) async fn run(context: &Context, shutdown: CancellationToken) -> Result<()> {
    let mut database = migrate::connect(&context.config.database.url).await?;
    migrate::check(&mut database).await?;
    let stop = shutdown.child_token();
    let together = async |part: &mut (dyn Future<Output = Result<()>> + Send + Unpin)| {
        let ended = part.await;
        stop.cancel();
        ended
    };
    let trades = context.sink_topics([Kind::Trade])?;
    let candles = context.sink_topics([Kind::Candle])?;
    let mut minutes = Box::pin(tier::<Minutes>(context, "candles", trades, stop.clone()));
    let mut longer = Box::pin(tier::<Longer>(context, "candles-longer", candles, stop.clone()));
    let mut reviser = Box::pin(revise(context, stop.clone()));
    let mut outbox = Box::pin(empty_outbox(context, stop.clone()));
    let ended = tokio::join!(
        together(&mut minutes),
        together(&mut longer),
        together(&mut reviser),
        together(&mut outbox)
    );
    ended.0.and(ended.1).and(ended.2).and(ended.3)
}

async fn tier<T: Tier>(
    context: &Context,
    name: &'static str,
    topics: Vec<Topic>,
    stop: CancellationToken,
) -> Result<()> {
    let config = &context.config;
    let settings = Settings {
        topic: topics[0].name.clone(),
        lateness_micros: i64::try_from(config.candles.allowed_lateness_ms)?.saturating_mul(1_000),
        hold_micros: HOLD_MICROS,
    };
    let sink = MessageSink::new(
        Bulk::new(&config.kafka.bulk_producer())?,
        context.prefix(),
        context.schema_ids.clone(),
        AssignFrom::Committed,
    );
    let limits = Limits {
        batch_positions: 20_000,
        batch_bytes: 4 * 1024 * 1024,
        linger: Duration::from_millis(config.candles.linger_ms),
    };
    host(context, name, topics, limits, vec![(Candles::<T>::new(settings), sink)], stop).await
}

async fn revise(context: &Context, stop: CancellationToken) -> Result<()> {
    let config = &context.config;
    let pool = PgPoolOptions::new()
        .max_connections(config.database.pool_size)
        .connect(&config.database.url)
        .await
        .context("database of the reviser")?;
    let reviser = Reviser::new(pool, &config.pipeline.id);
    let limits = Limits {
        batch_positions: 1_000,
        batch_bytes: 1024 * 1024,
        linger: Duration::from_millis(config.candles.linger_ms),
    };
    let topics = vec![context.dirty_topic()?];
    host(context, "candles-reviser", topics, limits, vec![(DirtyStage, reviser)], stop).await
}

/// Publishes revised candles.
struct CandlePublisher {
    producer: Producer,
    topic: Topic,
    schema_id: u32,
}

impl Publish for CandlePublisher {
    async fn publish(&mut self, candles: &[Outgoing]) -> Result<(), String> {
        let delivery = Delivery::new();
        let mut value = Vec::new();
        for candle in candles {
            value.clear();
            wire::put_header(self.schema_id, &mut value);
            value.extend_from_slice(&candle.value);
            let key = candle.key.as_bytes();
            let partition = Some(partition_for(key, self.topic.partitions));
            self.producer
                .send(&self.topic.name, partition, key, Some(&value), None, &delivery)
                .await?;
        }
        delivery.wait().await
    }
}

async fn empty_outbox(context: &Context, stop: CancellationToken) -> Result<()> {
    let topic = context.sink_topics([Kind::Candle])?.remove(0);
    let schema_id = context.schema_ids.get(&Kind::Candle).copied();
    let mut publisher = CandlePublisher {
        producer: Producer::new(&context.config.kafka)?,
        topic,
        schema_id: schema_id.context("no schema id for candles")?,
    };
    let mut connection: Option<PgConnection> = None;
    while !stop.is_cancelled() {
        let pause = match publish_once(context, &mut connection, &mut publisher).await {
            Ok(0) => OUTBOX_EVERY,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "revised candles wait in the outbox");
                connection = None;
                OUTBOX_PAUSE
            }
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => {}
        }
    }
    Ok(())
}

async fn publish_once(
    context: &Context,
    connection: &mut Option<PgConnection>,
    publisher: &mut CandlePublisher,
) -> Result<usize> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(PgConnection::connect(&context.config.database.url).await?),
    };
    Ok(publish_outbox(connection, publisher).await?)
}
