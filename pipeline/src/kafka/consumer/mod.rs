//! The consumer: librdkafka's `BaseConsumer` polled on a thread of its own, feeding the lanes
//! (`StreamConsumer` and split queues lose wake-ups: rust-rdkafka 638, 665, 840).

mod assignment;
mod judgement;
mod reading;
mod retention;

use std::collections::HashSet;
use std::sync::{Arc, mpsc as std_mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hashbrown::HashMap;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::BorrowedMessage;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tapeline_stages::flow::{Checkpoint, Input, Topic, TopicPartition};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::assignment::{Draining, Starting};
use self::reading::Reading;
use super::fixed::Fixed;
use super::lane::{LANE_CHUNKS, Lane};
use super::rebalance::{Change, Rebalances};
use super::source::{CHECKPOINTS, Checkpoints, Interrupt, KafkaSource, Wishes};
use crate::config::GroupProtocol;
use crate::telemetry::Component;

/// How long a question to the cluster may take.
const ASK: Duration = Duration::from_secs(10);
/// Longest wait for a message, which is also the longest wait of anything else the thread does.
const POLL: Duration = Duration::from_millis(5);
/// Longest wait for room in a lane's queue between two looks.
const ROOM: Duration = Duration::from_millis(2);
/// Time between commits.
const COMMIT_EVERY: Duration = Duration::from_millis(500);
/// Messages taken between two looks at everything else.
const SWEEP: usize = 2_000;

/// Who says what is read.
#[derive(Debug, Clone)]
pub enum Membership {
    /// The coordinator of the consumer group; positions are committed to it.
    Group,
    /// The caller, range by range; there is no group and nothing is committed. The source ends
    /// with the last range.
    Fixed(Fixed),
}

/// What to consume.
pub struct ConsumerOptions {
    /// Who says what is read.
    pub membership: Membership,
    /// Name of the consumer group; a name for logs and metrics where there is none.
    pub group: String,
    /// How its members agree.
    pub protocol: GroupProtocol,
    /// librdkafka's settings.
    pub config: ClientConfig,
    /// Topics; their index is that of [`TopicPartition`].
    pub topics: Vec<Topic>,
    /// Their incarnations, 32 hexadecimal digits each, by name.
    pub ids: std::collections::HashMap<String, String>,
    /// Lanes that share the partitions.
    pub lanes: usize,
    /// Go on where the log no longer has what is to be read next; it is counted as lost.
    pub accept_loss: bool,
    /// Is told whether the group has given this member its part.
    pub ready: Component,
}

/// The running thread.
pub struct ConsumerHandle(JoinHandle<()>);

impl ConsumerHandle {
    /// Waits until the consumer has left its group. Blocks.
    pub fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the consumer's thread panicked");
        }
    }
}

struct Worker {
    consumer: BaseConsumer<Rebalances>,
    topics: Vec<Topic>,
    index: HashMap<String, u16>,
    lanes: Vec<Lane>,
    checkpoints: std_mpsc::Receiver<Checkpoints>,
    owned: HashMap<TopicPartition, usize>,
    uncommitted: HashMap<TopicPartition, Checkpoint>,
    last_commit: Instant,
    starting: Vec<Starting>,
    draining: Option<Draining>,
    /// Set where there is no group.
    reading: Option<Reading>,
    accept_loss: bool,
    /// Partitions that their lanes do not want now.
    held: HashSet<TopicPartition>,
    ready: Component,
    /// What `ready` was last told.
    is_ready: Option<bool>,
    shutdown: CancellationToken,
    ending: bool,
    /// The lanes were told not to wait for long any more.
    interrupted: bool,
    failed: bool,
}

/// Starts the thread; one source a lane.
pub fn start_consumer(
    options: ConsumerOptions,
    shutdown: CancellationToken,
) -> Result<(Vec<KafkaSource>, ConsumerHandle)> {
    let consumer: BaseConsumer<Rebalances> = Rebalances::listening(&options.config)
        .create_with_context(Rebalances::new(&options))
        .context("kafka consumer")?;
    let names: Vec<_> = options.topics.iter().map(|topic| topic.name.as_str()).collect();
    let reading = match options.membership {
        Membership::Group => {
            consumer.subscribe(&names).context("subscribe")?;
            None
        }
        Membership::Fixed(fixed) => Some(Reading::new(fixed)),
    };
    let index = names.iter().enumerate().map(|(i, name)| ((*name).to_owned(), i as u16)).collect();
    let (sender, checkpoints) = std_mpsc::sync_channel(CHECKPOINTS);
    let ends: Vec<_> = (0..options.lanes.max(1))
        .map(|_| {
            (mpsc::channel(LANE_CHUNKS), Arc::<Interrupt>::default(), Arc::<Wishes>::default())
        })
        .collect();
    let mut receivers = Vec::new();
    let mut lanes = Vec::new();
    for ((input, inputs), interrupt, wishes) in ends {
        lanes.push(Lane::new(input, Arc::clone(&interrupt), Arc::clone(&wishes)));
        receivers.push((inputs, interrupt, wishes));
    }
    let worker = Worker {
        consumer,
        topics: options.topics,
        index,
        lanes,
        checkpoints,
        owned: HashMap::new(),
        uncommitted: HashMap::new(),
        last_commit: Instant::now(),
        starting: Vec::new(),
        draining: None,
        reading,
        accept_loss: options.accept_loss,
        held: HashSet::new(),
        ready: options.ready,
        is_ready: None,
        shutdown,
        ending: false,
        interrupted: false,
        failed: false,
    };
    let thread = std::thread::Builder::new()
        .name(format!("consume {}", options.group))
        .spawn(move || worker.run())
        .context("consumer thread")?;
    let sources = receivers
        .into_iter()
        .map(|(inputs, interrupt, wishes)| KafkaSource {
            inputs,
            wishes,
            checkpoints: sender.clone(),
            interrupt,
            consumer: thread.thread().clone(),
        })
        .collect();
    Ok((sources, ConsumerHandle(thread)))
}

impl Worker {
    fn run(mut self) {
        loop {
            let step = if self.failed { self.wind_up() } else { self.step() };
            if let Err(error) = step {
                self.failed = true;
                let reason = format!("{error:#}");
                tracing::error!(reason, "the consumer cannot go on");
                self.lanes.iter_mut().for_each(|lane| lane.tell(Input::Failed(reason.clone())));
                self.end();
            }
            if self.ending && self.lanes.iter().all(|lane| lane.sender.is_closed()) {
                break;
            }
        }
        self.take_checkpoints();
        self.commit(CommitMode::Sync);
        self.ready.unready("it has ended");
        self.owned.clear();
        self.show_partitions();
        self.consumer.context().close();
        self.answer_all();
        // Dropping the consumer leaves the group.
    }

    /// After a failure only the lanes' last words and commits matter.
    fn wind_up(&mut self) -> Result<()> {
        self.take_checkpoints();
        for lane in &mut self.lanes {
            // A lane that is gone needs no word any more.
            let _ = lane.deliver();
        }
        std::thread::park_timeout(POLL);
        Ok(())
    }

    fn step(&mut self) -> Result<()> {
        self.take_checkpoints();
        if self.last_commit.elapsed() >= COMMIT_EVERY {
            self.commit(CommitMode::Async);
        }
        self.settle_starting()?;
        self.settle_draining()?;
        self.settle_reading()?;
        for change in self.consumer.context().take() {
            match change {
                Change::Assign(list) => self.begin_assign(&list)?,
                Change::Revoke(list) => self.begin_revoke(list),
            }
        }
        self.take_wishes()?;
        self.say_whether_ready();
        anyhow::ensure!(
            self.ending || !self.consumer.context().is_cut_off(),
            "the group's coordinator is out of reach while the brokers are not, and will stay so: start the stage again"
        );
        if self.shutdown.is_cancelled() && !self.interrupted {
            if !self.ending {
                self.lanes.iter_mut().for_each(|lane| lane.tell(Input::End));
            }
            self.end();
        }
        for lane in &mut self.lanes {
            if lane.deliver().is_err() && !self.ending {
                // A lane that left has failed: the stage stops as a whole.
                self.shutdown.cancel();
            }
        }
        self.pause_and_resume()?;
        if self.lanes.iter().any(|lane| lane.is_stuck() && !lane.paused) {
            std::thread::park_timeout(ROOM);
            return Ok(());
        }
        self.sweep()
    }

    fn end(&mut self) {
        self.ending = true;
        self.interrupted = true;
        self.lanes.iter().for_each(|lane| lane.interrupt.raise());
    }

    fn show_partitions(&self) {
        let owned = self.owned.keys().map(|at| (self.name(*at).to_owned(), at.partition));
        self.consumer.context().show(owned.collect());
    }

    fn lane_of(&self, at: TopicPartition) -> usize {
        at.partition as usize % self.lanes.len()
    }

    fn place(&self, topic: &str, partition: i32) -> Option<TopicPartition> {
        self.index.get(topic).map(|&topic| TopicPartition { topic, partition })
    }

    fn name(&self, at: TopicPartition) -> &str {
        &self.topics[at.topic as usize].name
    }

    /// Takes messages until none is left or it is time to look after the rest.
    fn sweep(&mut self) -> Result<()> {
        let mut timeout = POLL;
        for _ in 0..SWEEP {
            // The borrow of the consumer ends before the lanes are touched.
            let consumer = &self.consumer;
            match consumer.poll(timeout) {
                None => break,
                Some(Ok(message)) => {
                    if let Some(recreated) = consumer.context().recreated() {
                        anyhow::bail!("{recreated}");
                    }
                    let reading = self.reading.as_mut();
                    Self::accept(&self.index, &self.owned, reading, &mut self.lanes, &message);
                }
                Some(Err(error)) => return self.judge(error),
            }
            timeout = Duration::ZERO;
        }
        self.lanes.iter_mut().for_each(Lane::close_all);
        Ok(())
    }

    fn accept(
        index: &HashMap<String, u16>,
        owned: &HashMap<TopicPartition, usize>,
        reading: Option<&mut Reading>,
        lanes: &mut [Lane],
        message: &BorrowedMessage<'_>,
    ) {
        let Some(&topic) = index.get(message.topic()) else { return };
        let at = TopicPartition { topic, partition: message.partition() };
        if reading.is_some_and(|reading| !reading.takes(at, message)) {
            return;
        }
        // A partition that is going is not read any more; its next owner reads this again.
        if let Some(&lane) = owned.get(&at) {
            lanes[lane].append(at, message);
        }
    }

    fn take_checkpoints(&mut self) {
        while let Ok(checkpoints) = self.checkpoints.try_recv() {
            self.uncommitted.extend(checkpoints);
        }
    }

    /// Commits for partitions that are still ours. Giving them up happens on this same thread,
    /// so nothing is ever committed for a partition of another owner.
    fn commit(&mut self, mode: CommitMode) {
        self.last_commit = Instant::now();
        if self.uncommitted.is_empty() {
            return;
        }
        if let Some(reading) = &self.reading {
            reading.progress().advance(self.uncommitted.drain());
            return;
        }
        let mut list = TopicPartitionList::new();
        for (at, checkpoint) in std::mem::take(&mut self.uncommitted) {
            if !self.owned.contains_key(&at) {
                continue;
            }
            let name = self.topics[at.topic as usize].name.as_str();
            let mut element = list.add_partition(name, at.partition);
            element.set_metadata(&checkpoint.note);
            if let Err(error) = element.set_offset(Offset::Offset(checkpoint.offset)) {
                tracing::error!(%error, "checkpoint");
            }
        }
        if list.count() > 0
            && let Err(error) = self.consumer.commit(&list, mode)
        {
            // Harmless: what is not committed is read again and recognised.
            tracing::warn!(%error, "commit");
        }
    }

    fn pause_and_resume(&mut self) -> Result<()> {
        for lane in 0..self.lanes.len() {
            let (pause, resume) =
                (self.lanes[lane].should_pause(), self.lanes[lane].should_resume());
            if !pause && !resume {
                continue;
            }
            // A partition that came while the lane was paused is resumed with the others: harmless.
            let mut list = TopicPartitionList::new();
            let mine = self.owned.iter().filter(|(_, owner)| **owner == lane);
            for (at, _) in mine.filter(|(at, _)| pause || !self.held.contains(at)) {
                if self.reading.as_mut().is_none_or(|reading| reading.is_read(*at)) {
                    list.add_partition(self.name(*at), at.partition);
                }
            }
            if pause {
                self.consumer.pause(&list).context("pause")?;
            } else {
                self.consumer.resume(&list).context("resume")?;
            }
            self.lanes[lane].paused = pause;
        }
        Ok(())
    }
}
