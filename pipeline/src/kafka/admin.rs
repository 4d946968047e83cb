//! Topics: creating them, their incarnations and their ends.
//!
//! The topic id, which tells a recreated topic from the one before, is in librdkafka but not in
//! its Rust wrapper: the calls to it, and those in `headers` and `writer`, are the unsafe part of this crate.

use std::collections::HashMap;
use std::ffi::{CStr, CString, c_char};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::bindings as ffi;
use rdkafka::client::DefaultClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::RDKafkaErrorCode;
use tapeline_schemas::{ALL_KINDS, Cleanup, Kind, KindSpec};
use tapeline_stages::tls::{CLOSED_AT_ONCE, advice};

use super::KafkaSettings;

/// How long a question to the cluster may take.
pub(super) const ADMIN_TIMEOUT: Duration = Duration::from_secs(15);
/// How long it may take until brokers know of new topics: one that has no time takes many of them
/// on one by one.
const KNOWN: Duration = Duration::from_secs(120);
/// Pause between two looks whether they do.
const KNOWN_PAUSE: Duration = Duration::from_millis(50);
/// librdkafka does not repeat itself before.
const SAID_AGAIN: Duration = Duration::from_secs(30);
/// Suffix of the topic of windows to be computed again.
const DIRTY: &str = "candle.dirty";

/// A topic as the cluster has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicState {
    /// Its incarnation: 32 hexadecimal digits.
    pub id: String,
    /// Number of its partitions.
    pub partitions: i32,
}

/// Questions about topics.
pub struct Admin {
    client: AdminClient<DefaultClientContext>,
    /// When a broker refused us last, and why.
    refusal: Mutex<Option<(Instant, String)>>,
}

struct TopicPlan {
    name: String,
    spec: &'static KindSpec,
    compact: bool,
    max_message_bytes: usize,
}

/// Every topic of the pipeline: raw and checked have the same number of partitions.
fn plans(prefix: &str) -> Vec<TopicPlan> {
    let mut plans = Vec::new();
    for spec in &ALL_KINDS {
        if spec.raw {
            plans.push(TopicPlan {
                name: spec.raw_topic(prefix),
                spec,
                compact: false,
                max_message_bytes: spec.max_message_bytes,
            });
        }
        plans.push(TopicPlan {
            name: spec.topic(prefix),
            spec,
            compact: spec.cleanup == Cleanup::Compact,
            max_message_bytes: spec.checked_max_message_bytes(),
        });
    }
    plans.push(TopicPlan {
        name: dirty_topic(prefix),
        spec: Kind::Candle.spec(),
        compact: false,
        max_message_bytes: Kind::Candle.spec().max_message_bytes,
    });
    plans
}

/// Name of the topic of windows to be computed again.
pub fn dirty_topic(prefix: &str) -> String {
    format!("{prefix}{DIRTY}")
}

/// Names of every topic of the pipeline behind `prefix`.
fn topic_names(prefix: &str) -> Vec<String> {
    plans(prefix).into_iter().map(|plan| plan.name).collect()
}

/// Creates the topics that do not exist yet; returns the names of those it created.
pub async fn create_topics(settings: &KafkaSettings) -> Result<Vec<String>> {
    create(settings, &plans(&settings.topic_prefix), settings.partitions).await
}

/// Creates another raw topic of `kind`; says whether it was not there yet.
pub async fn create_raw_topic(
    settings: &KafkaSettings,
    name: &str,
    kind: Kind,
    partitions: i32,
) -> Result<bool> {
    let (name, spec) = (name.to_owned(), kind.spec());
    let max_message_bytes = spec.max_message_bytes;
    let plan = TopicPlan { name, spec, compact: false, max_message_bytes };
    Ok(!create(settings, &[plan], Some(partitions)).await?.is_empty())
}

async fn create(
    settings: &KafkaSettings,
    plans: &[TopicPlan],
    partitions: Option<i32>,
) -> Result<Vec<String>> {
    let admin = Admin::new(settings)?;
    let configs: Vec<_> = plans
        .iter()
        .map(|plan| {
            let retention = u64::from(plan.spec.retention_days) * 86_400_000;
            (retention.to_string(), plan.max_message_bytes.to_string())
        })
        .collect();
    let topics: Vec<_> = plans
        .iter()
        .zip(&configs)
        .map(|(plan, (retention, largest))| {
            let partitions = partitions.unwrap_or(plan.spec.partitions);
            NewTopic::new(&plan.name, partitions, TopicReplication::Fixed(settings.replication))
                // Old venue times must not make retention eat fresh segments.
                .set("message.timestamp.type", "LogAppendTime")
                .set("cleanup.policy", if plan.compact { "compact" } else { "delete" })
                .set("retention.ms", retention)
                .set("max.message.bytes", largest)
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
    let results = admin.client.create_topics(&topics, &options).await;
    let results = results
        .map_err(|error| admin.refused_lately().map_or(error.into(), Error::msg))
        .context("create topics")?;
    let mut created = Vec::new();
    for result in results {
        match result {
            Ok(name) => created.push(name),
            Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((name, code)) => bail!("topic {name} cannot be created: {code}"),
        }
    }
    if !created.is_empty() {
        let names = created.clone();
        tokio::task::spawn_blocking(move || admin.wait_until_known(names)).await??;
    }
    Ok(created)
}

/// Deletes every topic of the pipeline; those that do not exist are passed over.
pub async fn delete_topics(settings: &KafkaSettings) -> Result<()> {
    let admin = Admin::new(settings)?;
    let plans = plans(&settings.topic_prefix);
    let names: Vec<_> = plans.iter().map(|plan| plan.name.as_str()).collect();
    let options = AdminOptions::new().operation_timeout(Some(ADMIN_TIMEOUT));
    for result in admin.client.delete_topics(&names, &options).await.context("delete topics")? {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
            Err((name, code)) => bail!("topic {name} cannot be deleted: {code}"),
        }
    }
    Ok(())
}

/// Incarnation and partitions of every topic of the pipeline, as [`Admin::describe`] answers.
pub async fn describe_all(settings: &KafkaSettings) -> Result<HashMap<String, TopicState>> {
    let settings = settings.clone();
    tokio::task::spawn_blocking(move || {
        let names = topic_names(&settings.topic_prefix);
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        Admin::new(&settings)?.describe(&names)
    })
    .await?
}

impl Admin {
    /// Connects lazily.
    pub fn new(settings: &KafkaSettings) -> Result<Admin> {
        let mut config = settings.client();
        // Says why a connection failed in notes of this level; they go no further than to us.
        config.set_log_level(RDKafkaLogLevel::Info);
        let client = config.create().context("kafka admin client")?;
        Ok(Admin { client, refusal: Mutex::new(None) })
    }

    /// Why brokers have refused us since this was last asked, with what to do, if TLS or login is at fault.
    fn refused(&self) -> Option<String> {
        let advised = |error: &String| Some(format!("kafka: {error}; {}", advice(error)?));
        let refused = self.errors().iter().rev().find_map(advised)?;
        *self.refusal() = Some((Instant::now(), refused.clone()));
        Some(refused)
    }

    /// Why brokers have refused us of late: the same refusal is not said again before [`SAID_AGAIN`].
    fn refused_lately(&self) -> Option<String> {
        drop(self.refused());
        let refusal = self.refusal();
        let lately = refusal.as_ref().filter(|(at, _)| at.elapsed() < SAID_AGAIN + ADMIN_TIMEOUT);
        lately.map(|(_, why)| why.clone())
    }

    fn refusal(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the client has said since the last time of brokers that it cannot reach. An answer that does
    /// not come does not say it, and the wrapper looks at its own queue only.
    fn errors(&self) -> Vec<String> {
        let mut errors = Vec::new();
        // SAFETY: the queue is the client's own and lives as long as it; its reference is given back, and
        // each event destroyed, exactly once, after the last use of the text that it owns.
        unsafe {
            let queue = ffi::rd_kafka_queue_get_main(self.client.inner().native_ptr());
            loop {
                let event = ffi::rd_kafka_queue_poll(queue, 0);
                if event.is_null() {
                    break;
                }
                errors.extend(failure(event));
                ffi::rd_kafka_event_destroy(event);
            }
            ffi::rd_kafka_queue_destroy(queue);
        }
        errors
    }

    /// The controller creates topics; a moment may pass until brokers know of them. Blocks.
    fn wait_until_known(&self, names: Vec<String>) -> Result<()> {
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let deadline = Instant::now() + KNOWN;
        loop {
            match self.describe(&names) {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => std::thread::sleep(KNOWN_PAUSE),
            }
        }
    }

    /// Incarnation and partitions of each of `names`; an error naming the first that does not exist.
    /// Blocks for up to fifteen seconds.
    pub fn describe(&self, names: &[&str]) -> Result<HashMap<String, TopicState>> {
        let names: Vec<CString> =
            names.iter().map(|name| CString::new(*name)).collect::<Result<_, _>>()?;
        let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        // SAFETY: every object that librdkafka returns here is destroyed below exactly once, after the
        // last use of what it owns; `names` and `pointers` outlive the call that copies them.
        unsafe {
            let client = self.client.inner().native_ptr();
            let queue = ffi::rd_kafka_queue_new(client);
            let topics =
                ffi::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            ffi::rd_kafka_DescribeTopics(client, topics, std::ptr::null(), queue);
            let deadline = Instant::now() + ADMIN_TIMEOUT;
            let mut event: *mut ffi::rd_kafka_event_t = std::ptr::null_mut();
            // A refusal that has passed may say nothing of this question, if an answer comes.
            drop(self.refused());
            let mut refused = None;
            while event.is_null() && refused.is_none() && Instant::now() < deadline {
                event = ffi::rd_kafka_queue_poll(queue, KNOWN_PAUSE.as_millis() as i32);
                // Which may be on its way down while another one answers: it only explains why no answer came.
                refused = self.refused().filter(|why| !why.contains(CLOSED_AT_ONCE));
            }
            let states = if event.is_null() {
                let late = || format!("kafka did not describe its topics within {ADMIN_TIMEOUT:?}");
                let why = refused.or_else(|| self.refused_lately());
                Err(Error::msg(why.unwrap_or_else(late)))
            } else {
                let states = read_descriptions(event);
                ffi::rd_kafka_event_destroy(event);
                states
            };
            ffi::rd_kafka_TopicCollection_destroy(topics);
            ffi::rd_kafka_queue_destroy(queue);
            states
        }
    }
}

/// Why a connection failed, if that is what the event says: an error, or a note of the log's facility `FAIL`.
///
/// # Safety
/// `event` must be a live event of librdkafka.
unsafe fn failure(event: *mut ffi::rd_kafka_event_t) -> Option<String> {
    // SAFETY: as the caller promises; the texts belong to the event and end with a zero.
    unsafe {
        let text = |pointer: *const c_char| CStr::from_ptr(pointer).to_string_lossy().into_owned();
        match ffi::rd_kafka_event_type(event) {
            ffi::RD_KAFKA_EVENT_ERROR => Some(text(ffi::rd_kafka_event_error_string(event))),
            ffi::RD_KAFKA_EVENT_LOG => {
                let (mut facility, mut note, mut level) = (std::ptr::null(), std::ptr::null(), 0);
                let missing =
                    ffi::rd_kafka_event_log(event, &mut facility, &mut note, &mut level) != 0;
                (!missing && text(facility) == "FAIL").then(|| text(note))
            }
            _ => None,
        }
    }
}

/// # Safety
/// `event` must be a live event of librdkafka.
unsafe fn read_descriptions(
    event: *mut ffi::rd_kafka_event_t,
) -> Result<HashMap<String, TopicState>> {
    let text = |pointer: *const c_char| {
        // SAFETY: librdkafka's strings end with a zero and live as long as their event.
        unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
    };
    // SAFETY: as the caller promises; all pointers below belong to the event.
    unsafe {
        if ffi::rd_kafka_event_error(event) != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            bail!(
                "kafka cannot describe topics: {}",
                text(ffi::rd_kafka_event_error_string(event))
            );
        }
        let result = ffi::rd_kafka_event_DescribeTopics_result(event);
        ensure!(!result.is_null(), "kafka answered another question than that about topics");
        let mut count = 0;
        let topics = ffi::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        let mut states = HashMap::new();
        for index in 0..count {
            let topic = *topics.add(index);
            let name = text(ffi::rd_kafka_TopicDescription_name(topic));
            let error = ffi::rd_kafka_TopicDescription_error(topic);
            if ffi::rd_kafka_error_code(error)
                != ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                bail!(
                    "topic {name}: {}; `tapeline topics create` creates what is missing",
                    text(ffi::rd_kafka_error_string(error))
                );
            }
            let id = ffi::rd_kafka_TopicDescription_topic_id(topic);
            let mut partitions = 0;
            ffi::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
            let id = format!(
                "{:016x}{:016x}",
                ffi::rd_kafka_Uuid_most_significant_bits(id),
                ffi::rd_kafka_Uuid_least_significant_bits(id)
            );
            states.insert(name, TopicState { id, partitions: i32::try_from(partitions)? });
        }
        Ok(states)
    }
}
