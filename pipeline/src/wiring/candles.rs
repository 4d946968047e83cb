//! Candles: minutes, longer ones, their revision and its outbox, and how they compare with the venues' own, each
//! on its own account.

use std::time::Duration;

use anyhow::{Context as _, Result};
use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgConnection};
use tapeline_schemas::{Kind, partition_for, wire};
use tapeline_stages::candle::{
    Candles, Comparer, DirtyStage, FinalCandles, HOLD_MICROS, Longer, Minutes, Outgoing, Publish,
    Reviser, Settings, Tell, Tier, publish_outbox,
};
use tapeline_stages::failpoint;
use tapeline_stages::flow::{Limits, Topic};
use tokio_util::sync::CancellationToken;

use super::{Context, host};
use crate::kafka::{AssignFrom, Bulk, Delivery, MessageSink, Producer};
use crate::migrate;

/// Time between two looks at an empty outbox.
const OUTBOX_EVERY: Duration = Duration::from_millis(200);
/// Pause after the outbox could not be emptied.
const OUTBOX_PAUSE: Duration = Duration::from_secs(2);

/// Runs all five until `shutdown`; where one fails, all end.
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
    let mut compared = Box::pin(compare(context, stop.clone()));
    let ended = tokio::join!(
        together(&mut minutes),
        together(&mut longer),
        together(&mut reviser),
        together(&mut outbox),
        together(&mut compared)
    );
    ended.0.and(ended.1).and(ended.2).and(ended.3).and(ended.4)
}

async fn tier<T: Tier>(
    context: &Context,
    name: &'static str,
    topics: Vec<Topic>,
    stop: CancellationToken,
) -> Result<()> {
    let lanes = vec![operator::<T>(context, name, &topics[0].name)?];
    host(context, name, topics, tier_limits(context), lanes, stop).await
}

/// The operator of a tier over `topic`, and where its messages go.
pub(crate) fn operator<T: Tier>(
    context: &Context,
    name: &'static str,
    topic: &str,
) -> Result<(Candles<T>, MessageSink)> {
    let config = &context.config;
    let settings = Settings {
        topic: topic.to_owned(),
        lateness_micros: i64::try_from(config.candles.allowed_lateness_ms)?.saturating_mul(1_000),
        hold_micros: HOLD_MICROS,
    };
    let sink = MessageSink::new(
        name,
        Bulk::new(&config.kafka.bulk_producer())?,
        context.prefix(),
        context.schema_ids.clone(),
        AssignFrom::Committed,
    );
    Ok((Candles::<T>::new(settings), sink))
}

pub(crate) fn tier_limits(context: &Context) -> Limits {
    Limits {
        batch_positions: 20_000,
        batch_bytes: 4 * 1024 * 1024,
        linger: Duration::from_millis(context.config.candles.linger_ms),
    }
}

async fn revise(context: &Context, stop: CancellationToken) -> Result<()> {
    let config = &context.config;
    let pool = PgPoolOptions::new()
        .max_connections(config.database.pool_size)
        .connect(&config.database.url)
        .await
        .context("database of the reviser")?;
    let lanes = vec![(DirtyStage, Reviser::new(pool, &config.pipeline.id))];
    let topics = vec![context.dirty_topic()?];
    host(context, "candles-reviser", topics, reviser_limits(context), lanes, stop).await
}

pub(crate) fn reviser_limits(context: &Context) -> Limits {
    Limits {
        batch_positions: 1_000,
        batch_bytes: 1024 * 1024,
        linger: Duration::from_millis(context.config.candles.linger_ms),
    }
}

async fn compare(context: &Context, stop: CancellationToken) -> Result<()> {
    let config = &context.config;
    let pool = PgPoolOptions::new()
        .max_connections(config.database.pool_size)
        .connect(&config.database.url)
        .await
        .context("database of the comparison")?;
    let topics = context.sink_topics([Kind::Candle, Kind::VenueCandle])?;
    let raw_topic = Kind::VenueCandle.spec().raw_topic(context.prefix());
    let tell = EventPublisher::new(context, Kind::Anomaly)?;
    let comparer = Comparer::new(pool, &config.pipeline.id, topics.clone(), raw_topic, tell);
    let limits = Limits {
        batch_positions: 1_000,
        batch_bytes: 1024 * 1024,
        linger: Duration::from_millis(config.candles.linger_ms),
    };
    let lanes = vec![(FinalCandles::default(), comparer)];
    host(context, "candles-compare", topics, limits, lanes, stop).await
}

/// Publishes events of one kind that were made beside the stream.
struct EventPublisher {
    producer: Producer,
    topic: Topic,
    schema_id: u32,
}

impl EventPublisher {
    fn new(context: &Context, kind: Kind) -> Result<EventPublisher> {
        let schema_id = context.schema_ids.get(&kind).copied();
        Ok(EventPublisher {
            producer: Producer::new(&context.config.kafka)?,
            topic: context.sink_topics([kind])?.remove(0),
            schema_id: schema_id.with_context(|| format!("no schema id for {}", kind.name()))?,
        })
    }

    async fn all<'e>(
        &self,
        events: impl Iterator<Item = (&'e str, &'e [u8])> + Send,
    ) -> Result<(), String> {
        let delivery = Delivery::new();
        let mut value = Vec::new();
        for (key, event) in events {
            value.clear();
            wire::put_header(self.schema_id, &mut value);
            value.extend_from_slice(event);
            let key = key.as_bytes();
            let partition = Some(partition_for(key, self.topic.partitions));
            self.producer
                .send(&self.topic.name, partition, key, Some(&value), None, &delivery)
                .await?;
        }
        delivery.wait().await?;
        failpoint::hit("candles-outbox.after_send");
        Ok(())
    }
}

/// Publishes what the outbox behind `connection` holds now.
pub(crate) async fn publish_waiting(
    context: &Context,
    connection: &mut PgConnection,
) -> Result<()> {
    let mut publisher = EventPublisher::new(context, Kind::Candle)?;
    while publish_outbox(connection, &mut publisher).await? > 0 {}
    Ok(())
}

impl Publish for EventPublisher {
    async fn publish(&mut self, candles: &[Outgoing]) -> Result<(), String> {
        self.all(candles.iter().map(|candle| (candle.key.as_str(), candle.value.as_slice()))).await
    }
}

impl Tell for EventPublisher {
    async fn tell(&mut self, anomalies: &[(String, Vec<u8>)]) -> Result<(), String> {
        self.all(anomalies.iter().map(|(key, event)| (key.as_str(), event.as_slice()))).await
    }
}

async fn empty_outbox(context: &Context, stop: CancellationToken) -> Result<()> {
    let mut publisher = EventPublisher::new(context, Kind::Candle)?;
    let mut connection: Option<PgConnection> = None;
    while !stop.is_cancelled() {
        let pause = match publish_once(context, &mut connection, &mut publisher).await {
            Ok(0) => OUTBOX_EVERY,
            Ok(_) => continue,
            Err(error) => {
                tracing::warn!(%error, "revised candles wait in the outbox");
                connection = None;
                // After a delivery that failed for good a producer takes nothing any more.
                publisher.producer = Producer::new(&context.config.kafka)?;
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
    publisher: &mut EventPublisher,
) -> Result<usize> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(PgConnection::connect(&context.config.database.url).await?),
    };
    Ok(publish_outbox(connection, publisher).await?)
}
