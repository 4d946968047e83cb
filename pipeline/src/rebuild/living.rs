//! Which stored events Redis would still show. Rows do not say when they were written (invariant 5); the ledger does.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use sqlx::PgConnection;
use tapeline_schemas::Micros;
use tapeline_stages::flow::Topic;
use tapeline_stages::sinks::TopicIdentity;

/// Newest batches of a partition that are looked at (invariant 8): what is in older ones counts as expired.
const BATCHES: i64 = 10_000;

const LIVING: &str = "select batch.partition, first_origin, last_origin,
        (extract(epoch from min_event_time) * 1000000)::bigint,
        (extract(epoch from max_event_time) * 1000000)::bigint, left_ms
    from generate_series(0, $4 - 1) as place cross join lateral (
        select *, least($5, $5 - (extract(epoch from clock_timestamp() - written_at) * 1000)::bigint) as left_ms
        from tapeline_ledger
        where pipeline = $1 and topic = $2 and topic_id = $3 and partition = place
        order by first_offset desc limit $6) as batch
    where left_ms > 0 and min_event_time is not null
    order by batch.partition, first_origin";

/// A batch of the store whose values have not outlived their time.
#[derive(Debug, Clone, Copy)]
struct Batch {
    first_origin: i64,
    last_origin: i64,
    from: Micros,
    to: Micros,
    /// What was left of its values' time when it was read.
    left: Duration,
}

/// Batches of one topic by partition, in the order of their origins.
#[derive(Debug)]
pub(super) struct Living {
    batches: HashMap<i32, Vec<Batch>>,
    read: Instant,
}

impl Living {
    /// Reads those of the last `lifetime`.
    pub(super) async fn read(
        database: &mut PgConnection,
        pipeline: &str,
        topic: &Topic,
        identity: &TopicIdentity,
        lifetime: Duration,
    ) -> Result<Living> {
        let read = Instant::now();
        let rows: Vec<(i32, i64, i64, i64, i64, i64)> = sqlx::query_as(LIVING)
            .bind(pipeline)
            .bind(&topic.name)
            .bind(&identity.id)
            .bind(topic.partitions)
            .bind(i64::try_from(lifetime.as_millis())?)
            .bind(BATCHES)
            .fetch_all(database)
            .await
            .context("the store's ledger")?;
        let mut living = Living { batches: HashMap::new(), read };
        for (partition, first_origin, last_origin, from, to, left_ms) in rows {
            let left = Duration::from_millis(left_ms.unsigned_abs());
            let (from, to) = (Micros(from), Micros(to));
            let batch = Batch { first_origin, last_origin, from, to, left };
            living.batches.entry(partition).or_default().push(batch);
        }
        Ok(living)
    }

    /// The oldest event time among them; none where nothing was stored in time.
    pub(super) fn since(&self) -> Option<Micros> {
        self.batches.values().flatten().map(|batch| batch.from).min()
    }

    /// What is left `now` of the time of an event, which may be of another topic or pipeline whose places look the same:
    /// its time has to be one of the batch too.
    pub(super) fn left(
        &self,
        (partition, origin): (i32, i64),
        time: Micros,
        now: Instant,
    ) -> Option<Duration> {
        let batches = self.batches.get(&partition)?;
        let after = batches.partition_point(|batch| batch.first_origin <= origin);
        let batch = batches.get(after.checked_sub(1)?)?;
        let is_in = origin <= batch.last_origin && batch.from <= time && time <= batch.to;
        let left = batch.left.saturating_sub(now.saturating_duration_since(self.read));
        (is_in && !left.is_zero()).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_lives_as_long_as_the_batch_that_stored_it_and_no_other() {
        let batch = |first_origin, last_origin, seconds| Batch {
            first_origin,
            last_origin,
            from: Micros(100),
            to: Micros(200),
            left: Duration::from_secs(seconds),
        };
        let read = Instant::now();
        let batches = HashMap::from([(3, vec![batch(10, 19, 5), batch(30, 39, 50)])]);
        let living = Living { batches, read };
        let left = |origin, time| living.left((3, origin), Micros(time), read);
        assert_eq!(left(10, 100), Some(Duration::from_secs(5)));
        assert_eq!(left(19, 200), Some(Duration::from_secs(5)));
        assert_eq!(left(39, 150), Some(Duration::from_secs(50)));
        for (origin, time) in [(9, 150), (20, 150), (40, 150), (10, 99), (10, 201)] {
            assert_eq!(left(origin, time), None, "origin {origin}, time {time}");
        }
        assert_eq!(living.left((2, 10), Micros(150), read), None, "another partition");
        let later =
            |seconds| living.left((3, 10), Micros(150), read + Duration::from_secs(seconds));
        assert_eq!(
            (later(3), later(5)),
            (Some(Duration::from_secs(2)), None),
            "it grows older meanwhile"
        );
        assert_eq!(living.since(), Some(Micros(100)));
    }
}
