//! Where the records of stored candles stand in the log. A row of a candle says everything but that, and without it
//! nobody could tell in Redis which of two values is newer (invariant 6).

use std::collections::HashMap;

use anyhow::Result;
use tapeline_schemas::{Candle, Kind, Micros, Record as _};
use tapeline_stages::cache::stored::StoredEvent;
use tapeline_stages::decode::Decoders;
use tapeline_stages::flow::{Record, Refusal, Topic, TopicPartition};
use tapeline_stages::sinks::redis::LogEnds as _;

use crate::config::Config;
use crate::kafka::{LogEndReader, OffsetRange, read_ranges};
use crate::registry_client::RegistryClient;
use crate::schemas::Schemas;

/// What the log says of a stored candle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Nothing within the lifetime of its value.
    Nowhere,
    /// Its record is here, and nothing newer follows.
    At {
        partition: i32,
        offset: i64,
        /// When the broker appended it.
        appended: Micros,
    },
    /// The log ends with another of the same time or a newer one, which the database does not have.
    Overtaken,
}

/// Stored candles, one a symbol and timeframe (invariant 8: as many as the cache itself holds).
#[derive(Debug, Default)]
pub(super) struct Candles(HashMap<String, Looked>);

#[derive(Debug)]
struct Looked {
    stored: StoredEvent,
    place: Place,
    /// Newest time that the log has had so far: behind it, the cache takes nothing older.
    newest: Micros,
}

fn key(exchange: &str, symbol: &str, timeframe: &str) -> String {
    format!("{exchange}:{symbol}:{timeframe}")
}

impl Candles {
    pub(super) fn add(&mut self, event: StoredEvent) {
        let timeframe = event.timeframe.as_deref().unwrap_or_default();
        let key = key(&event.exchange, &event.symbol, timeframe);
        let newest = Micros(i64::MIN);
        self.0.insert(key, Looked { stored: event, place: Place::Nowhere, newest });
    }

    /// The same with the place of each, by what was appended to `topic` within the lifetime of a value.
    pub(super) async fn placed(
        mut self,
        config: &Config,
        topic: &Topic,
    ) -> Result<Vec<(StoredEvent, Place)>> {
        let mut ends = LogEndReader::new(&config.kafka, vec![topic.clone()])?;
        let mut ranges = Vec::new();
        for partition in 0..topic.partitions {
            let at = TopicPartition { topic: 0, partition };
            let from = ends.living(at).await.map_err(anyhow::Error::msg)?;
            let to = ends.end(at).await.map_err(anyhow::Error::msg)?;
            ranges.push(OffsetRange { partition, from, to });
        }
        let schemas = Schemas::new(RegistryClient::configured(&config.registry)?);
        let (kafka, topic) = (config.kafka.clone(), topic.name.clone());
        tokio::task::spawn_blocking(move || {
            let mut decoders = Decoders::new();
            read_ranges(&kafka, &topic, 0, &ranges, &mut |record| {
                if let Some(payload) = payload(&mut decoders, record, &schemas)? {
                    self.look(record, &payload);
                }
                Ok(())
            })?;
            Ok(self.0.into_values().map(|looked| (looked.stored, looked.place)).collect())
        })
        .await?
    }

    /// Holds a record against the candle of its symbol and timeframe.
    fn look(&mut self, record: &Record<'_>, payload: &[u8]) {
        let Ok(made) = Candle::decode(payload) else { return }; // no stage takes it either
        let key = key(&made.exchange, &made.symbol, &made.timeframe);
        let Some(looked) = self.0.get_mut(&key).filter(|looked| made.open_time >= looked.newest)
        else {
            return;
        };
        looked.newest = made.open_time;
        if looked.stored.payload == payload {
            let (partition, offset) = (record.at.partition, record.offset);
            looked.place = Place::At { partition, offset, appended: record.time };
        } else if made.open_time >= looked.stored.time {
            looked.place = Place::Overtaken;
        }
    }
}

/// The candle of a record in our own schema; none where no stage takes it.
fn payload(
    decoders: &mut Decoders,
    record: &Record<'_>,
    schemas: &Schemas,
) -> Result<Option<Vec<u8>>> {
    let Some(value) = record.value else { return Ok(None) };
    loop {
        // Twice at most: the second time the schema is known, or known to be unknown.
        match decoders.payload(Kind::Candle, value) {
            Ok(payload) => return Ok(Some(payload.to_vec())),
            Err(Refusal::Reject(_)) => return Ok(None),
            Err(Refusal::UnknownSchema(kind, id)) => {
                let schema = schemas.lookup(id)?;
                decoders.learn(kind, id, schema.as_deref());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tapeline_schemas::{CandleSource, Money, Wide, encode};
    use tapeline_stages::flow::Headers;

    use super::*;

    fn candle(minute: i64, revision: i32) -> Vec<u8> {
        encode(&Candle {
            exchange: "TEST".into(),
            symbol: "A-USD".into(),
            timeframe: "1m".into(),
            source: CandleSource::Tapeline,
            open_time: Micros(minute * 60_000_000),
            close_time: Micros((minute + 1) * 60_000_000),
            open: Money::ONE,
            high: Money::ONE,
            low: Money::ONE,
            close: Money::ONE,
            volume: Money::ONE,
            quote_volume: Wide::ZERO,
            trades_count: 1,
            is_final: true,
            revision,
            receive_time: Micros(0),
        })
    }

    /// The place of minute 5, revision 1, where the log holds these minutes and revisions.
    fn place(log: &[(i64, i32)]) -> Place {
        let mut candles = Candles::default();
        candles.add(StoredEvent {
            exchange: "TEST".to_owned(),
            symbol: "A-USD".to_owned(),
            timeframe: Some("1m".to_owned()),
            time: Micros(300_000_000),
            origin: None,
            payload: candle(5, 1),
        });
        for (offset, &(minute, revision)) in (0..).zip(log) {
            let at = TopicPartition { topic: 0, partition: 2 };
            let headers = Headers::default();
            let time = Micros(offset);
            let record = Record { at, offset, time, key: None, value: None, headers };
            candles.look(&record, &candle(minute, revision));
        }
        candles.0.into_values().next().expect("one").place
    }

    #[test]
    fn a_stored_candle_has_the_place_of_its_record_unless_the_log_ends_with_a_newer_one() {
        let at = |offset| Place::At { partition: 2, offset, appended: Micros(offset) };
        assert_eq!(place(&[]), Place::Nowhere);
        assert_eq!(place(&[(3, 0), (4, 0)]), Place::Nowhere);
        assert_eq!(place(&[(4, 0), (5, 0), (5, 1)]), at(2));
        assert_eq!(place(&[(5, 1), (5, 1)]), at(1), "emitted again");
        assert_eq!(place(&[(5, 1), (4, 1)]), at(0), "an older one was revised since");
        assert_eq!(place(&[(5, 1), (6, 0)]), Place::Overtaken);
        assert_eq!(place(&[(5, 1), (5, 0)]), Place::Overtaken);
        assert_eq!(place(&[(5, 0)]), Place::Overtaken);
        assert_eq!(place(&[(5, 1), (6, 0), (5, 1)]), Place::Overtaken, "emitted again, too late");
    }
}
