//! Fences: up to where each partition is in the database, and who may go on (invariant 2).

use std::collections::BTreeMap;

use super::connection::Session;
use super::error::Failure;
use crate::flow::{Span, TopicPartition};
use crate::sinks::TopicIdentity;

/// A backend of the database; pids come back, pairs of pid and start do not.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    pid: i32,
    started: String,
}

/// A partition's fence as this owner last saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fence {
    pub(super) next_offset: Option<i64>,
    pub(super) held_origin: Option<i64>,
    epoch: i64,
}

/// The fences of the partitions that are ours.
#[derive(Debug)]
pub(super) struct Fences {
    pipeline: String,
    topics: Vec<TopicIdentity>,
    takeover_ms: u64,
    held: BTreeMap<TopicPartition, Fence>,
    /// The backend of a claim whose COMMIT was not answered.
    unconfirmed: Option<Owner>,
}

type FenceRow = (String, i32, String, Option<i64>, Option<i64>, i64, Option<i32>, Option<String>);

struct Found {
    at: TopicPartition,
    topic_id: String,
    fence: Fence,
    owner: Option<Owner>,
}

/// Attempts to claim before the loop is told to wait.
const CLAIM_ATTEMPTS: u32 = 3;
/// Number that PostgreSQL gives to "lock not available".
const LOCK_TIMEOUT: &str = "55P03";

const SELECT: &str = "select f.topic, f.partition, f.topic_id, f.next_offset, f.held_origin,
        f.epoch, f.owner_pid, f.owner_started::text
    from tapeline_fence f
    join unnest($2::text[], $3::integer[]) as wanted (topic, partition)
        on f.topic = wanted.topic and f.partition = wanted.partition
    where f.pipeline = $1
    order by f.topic, f.partition
    for update of f";

/// Whoever holds a fence's lock and is written there as its owner is ended. Locks that others
/// hold, such as a second successor, only last for moments.
const END_OWNERS: &str = "with wanted as (
        select f.* from tapeline_fence f
        join unnest($2::text[], $3::integer[]) as w (topic, partition)
            on f.topic = w.topic and f.partition = w.partition
        where f.pipeline = $1
    ), free as materialized (
        select f.topic, f.partition from tapeline_fence f
        join unnest($2::text[], $3::integer[]) as w (topic, partition)
            on f.topic = w.topic and f.partition = w.partition
        where f.pipeline = $1
        for update of f skip locked
    )
    select a.pid, pg_terminate_backend(a.pid)
    from (
        select distinct owner_pid, owner_started from wanted
        where (topic, partition) not in (select topic, partition from free)
    ) as stuck
    join pg_stat_activity a
        on a.pid = stuck.owner_pid and a.backend_start = stuck.owner_started
    where a.pid <> pg_backend_pid()";

impl Fences {
    pub(super) fn new(pipeline: String, topics: Vec<TopicIdentity>, takeover_ms: u64) -> Fences {
        Fences { pipeline, topics, takeover_ms, held: BTreeMap::new(), unconfirmed: None }
    }

    pub(super) fn pipeline(&self) -> &str {
        &self.pipeline
    }

    pub(super) fn topic(&self, at: TopicPartition) -> &TopicIdentity {
        &self.topics[usize::from(at.topic)]
    }

    pub(super) fn held(&self, at: TopicPartition) -> Option<&Fence> {
        self.held.get(&at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    pub(super) fn release(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            self.held.remove(at);
        }
    }

    /// Takes partitions over from whoever had them. What the fence says is where they stand.
    pub(super) async fn claim(
        &mut self,
        session: &mut Session,
        partitions: &[TopicPartition],
    ) -> Result<(), Failure> {
        for found in self.claim_all(session, partitions, false).await? {
            self.held.insert(found.at, found.fence);
        }
        Ok(())
    }

    /// After a lost connection: takes what is ours again, if nobody else has, and says whether
    /// the batch of `spans`, whose COMMIT may have gone unheard, is there.
    pub(super) async fn reclaim(
        &mut self,
        session: &mut Session,
        spans: &[Span],
    ) -> Result<bool, Failure> {
        let partitions: Vec<_> = self.held.keys().copied().collect();
        let all = self.claim_all(session, &partitions, true).await?;
        let written = spans.iter().any(|span| {
            let stood = self.held.get(&span.at).and_then(|fence| fence.next_offset);
            all.iter().any(|found| found.at == span.at && found.fence.next_offset != stood)
        });
        for found in all {
            let span = spans.iter().find(|span| span.at == found.at).filter(|_| written);
            let stood = self.held.get(&found.at).and_then(|fence| fence.next_offset);
            let expected = span.map_or(stood, |span| Some(span.next_offset));
            self.check_offset(found.at, expected, found.fence.next_offset)?;
            self.held.insert(found.at, found.fence);
        }
        Ok(written)
    }

    async fn claim_all(
        &mut self,
        session: &mut Session,
        partitions: &[TopicPartition],
        again: bool,
    ) -> Result<Vec<Found>, Failure> {
        let mut attempt = 1;
        loop {
            match self.try_claim(session, partitions, again).await {
                Ok(found) => return Ok(found),
                Err(failure) if failure.is_lost() => return Err(failure),
                Err(Failure::Later(reason))
                    if reason.contains(LOCK_TIMEOUT) && attempt < CLAIM_ATTEMPTS =>
                {
                    session.rollback().await?;
                    self.end_owners(session, partitions).await?;
                    attempt += 1;
                }
                Err(failure) => {
                    session.rollback().await?;
                    return Err(failure);
                }
            }
        }
    }

    async fn try_claim(
        &mut self,
        session: &mut Session,
        partitions: &[TopicPartition],
        again: bool,
    ) -> Result<Vec<Found>, Failure> {
        session.run(&format!("begin; set local lock_timeout = {}", self.takeover_ms)).await?;
        let (topics, numbers) = self.columns(partitions);
        let ids: Vec<&str> = partitions.iter().map(|at| self.topic(*at).id.as_str()).collect();
        let insert = sqlx::query_as::<_, ()>(
            "insert into tapeline_fence (pipeline, topic, partition, topic_id)
            select $1, wanted.* from unnest($2::text[], $3::integer[], $4::text[]) as wanted
            on conflict do nothing",
        );
        let insert = insert.bind(&self.pipeline).bind(&topics).bind(&numbers).bind(&ids);
        session.rows(insert).await?;
        let found = self.lock(session, partitions).await?;
        for found in &found {
            self.check_topic(found)?;
            if again {
                self.check_owner(found)?;
            }
        }
        let update = sqlx::query_as::<_, (i32, String)>(
            "update tapeline_fence f set epoch = f.epoch + 1, owner_pid = a.pid,
                owner_started = a.backend_start
            from unnest($2::text[], $3::integer[]) as wanted (topic, partition),
                pg_stat_activity a
            where a.pid = pg_backend_pid() and f.pipeline = $1
                and f.topic = wanted.topic and f.partition = wanted.partition
            returning f.owner_pid, f.owner_started::text",
        );
        let update = update.bind(&self.pipeline).bind(&topics).bind(&numbers);
        let owner = session.rows(update).await?.pop();
        self.unconfirmed = owner.map(|(pid, started)| Owner { pid, started });
        session.run("commit").await?;
        self.unconfirmed = None;
        Ok(found
            .into_iter()
            .map(|found| Found {
                fence: Fence { epoch: found.fence.epoch + 1, ..found.fence },
                ..found
            })
            .collect())
    }

    /// The fences, locked in order, so that several in one transaction cannot deadlock.
    async fn lock(
        &self,
        session: &mut Session,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Found>, Failure> {
        let (topics, numbers) = self.columns(partitions);
        let query =
            sqlx::query_as::<_, FenceRow>(SELECT).bind(&self.pipeline).bind(&topics).bind(&numbers);
        let rows = session.rows(query).await?;
        let found: Vec<Found> = rows
            .into_iter()
            .filter_map(
                |(topic, partition, topic_id, next_offset, held_origin, epoch, pid, started)| {
                    let at = *partitions
                        .iter()
                        .find(|at| at.partition == partition && self.topic(**at).name == topic)?;
                    let owner = pid.zip(started).map(|(pid, started)| Owner { pid, started });
                    Some(Found {
                        at,
                        topic_id,
                        fence: Fence { next_offset, held_origin, epoch },
                        owner,
                    })
                },
            )
            .collect();
        if found.len() != partitions.len() {
            return Err(Failure::Fatal("a fence of this pipeline was removed".to_owned()));
        }
        Ok(found)
    }

    async fn end_owners(
        &self,
        session: &mut Session,
        partitions: &[TopicPartition],
    ) -> Result<(), Failure> {
        let (topics, numbers) = self.columns(partitions);
        let query = sqlx::query_as::<_, (i32, bool)>(END_OWNERS)
            .bind(&self.pipeline)
            .bind(&topics)
            .bind(&numbers);
        for (pid, ended) in session.rows(query).await? {
            tracing::warn!(pid, ended, "a frozen owner held the fence; its backend was ended");
            metrics::counter!("tapeline_store_takeovers_total").increment(1);
        }
        Ok(())
    }

    /// Moves the fences of `spans` on, if they stand where we left them; the transaction holds
    /// them from here on.
    pub(super) async fn advance(
        &self,
        session: &mut Session,
        spans: &[Span],
    ) -> Result<(), Failure> {
        let partitions: Vec<_> = spans.iter().map(|span| span.at).collect();
        for found in self.lock(session, &partitions).await? {
            self.check_topic(&found)?;
            self.check_owner(&found)?;
            let expected = self.held.get(&found.at).and_then(|fence| fence.next_offset);
            self.check_offset(found.at, expected, found.fence.next_offset)?;
        }
        let (topics, numbers) = self.columns(&partitions);
        let next: Vec<i64> = spans.iter().map(|span| span.next_offset).collect();
        let origins: Vec<i64> = spans.iter().map(|span| span.held_origin).collect();
        let query = sqlx::query_as::<_, ()>(
            "update tapeline_fence f set next_offset = moved.next_offset,
                held_origin = greatest(f.held_origin, moved.held_origin)
            from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[])
                as moved (topic, partition, next_offset, held_origin)
            where f.pipeline = $1 and f.topic = moved.topic and f.partition = moved.partition",
        );
        let query =
            query.bind(&self.pipeline).bind(&topics).bind(&numbers).bind(&next).bind(&origins);
        session.rows(query).await.map(drop)
    }

    /// The transaction that moved them is durable.
    pub(super) fn advanced(&mut self, spans: &[Span]) {
        for span in spans {
            if let Some(fence) = self.held.get_mut(&span.at) {
                fence.next_offset = Some(span.next_offset);
                fence.held_origin = fence.held_origin.max(Some(span.held_origin));
            }
        }
    }

    fn columns(&self, partitions: &[TopicPartition]) -> (Vec<&str>, Vec<i32>) {
        partitions.iter().map(|at| (self.topic(*at).name.as_str(), at.partition)).unzip()
    }

    fn check_topic(&self, found: &Found) -> Result<(), Failure> {
        let topic = self.topic(found.at);
        if found.topic_id == topic.id {
            return Ok(());
        }
        Err(Failure::Fatal(format!(
            "topic {} was recreated: its id is {}, the fence of partition {} was made for {}. Offsets of \
             the old topic mean nothing in the new one, so nothing was skipped or stored. Either give this \
             pipeline another name, so that it begins anew (rows that are there already count as \
             duplicates), or delete the fence: delete from tapeline_fence where pipeline = '{}' and topic = '{}'",
            topic.name, topic.id, found.at.partition, found.topic_id, self.pipeline, topic.name
        )))
    }

    fn check_owner(&self, found: &Found) -> Result<(), Failure> {
        let epoch = self.held.get(&found.at).map(|fence| fence.epoch);
        let is_ours = epoch == Some(found.fence.epoch)
            || (self.unconfirmed.is_some() && found.owner == self.unconfirmed);
        if is_ours {
            return Ok(());
        }
        Err(Failure::Fatal(format!(
            "{} [{}] was lost to another owner: epoch {:?} expected, {} found; next offset {:?} expected, {:?} found",
            self.topic(found.at).name,
            found.at.partition,
            epoch,
            found.fence.epoch,
            self.held.get(&found.at).and_then(|fence| fence.next_offset),
            found.fence.next_offset
        )))
    }

    fn check_offset(
        &self,
        at: TopicPartition,
        expected: Option<i64>,
        found: Option<i64>,
    ) -> Result<(), Failure> {
        if expected == found {
            return Ok(());
        }
        Err(Failure::Fatal(format!(
            "{} [{}]: the fence stands at {found:?}, expected {expected:?}: another owner wrote",
            self.topic(at).name,
            at.partition
        )))
    }
}
