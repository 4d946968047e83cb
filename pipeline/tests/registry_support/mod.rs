//! A topic of its own for every test, and a registry over it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;
use tapeline::registry::{self, RegistryOptions, RunningRegistry};
use tapeline_schemas::{Record, Trade};
use tokio_util::sync::CancellationToken;

const WAIT: Duration = Duration::from_secs(20);

/// The schema that trades are written with.
pub(crate) fn trade_schema() -> &'static str {
    Trade::SCHEMA
}

fn brokers() -> String {
    std::env::var("TAPELINE__KAFKA__BROKERS").unwrap_or_else(|_| "127.0.0.1:19092".into())
}

fn kafka() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers());
    config
}

/// A schemas topic that no other test has. Removed when the test is over.
pub(crate) struct TestTopic {
    name: String,
}

impl TestTopic {
    pub(crate) fn new(test: &str) -> TestTopic {
        #[allow(clippy::disallowed_methods, reason = "a name that no earlier run used")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
        TestTopic { name: format!("_schemas-test-{test}-{}-{now}", std::process::id()) }
    }

    /// All records, as text.
    pub(crate) async fn records(&self) -> Vec<(String, Option<String>)> {
        let name = self.name.clone();
        tokio::task::spawn_blocking(move || read_all(&name)).await.expect("no panic")
    }

    pub(crate) async fn produce(&self, key: &str, value: Option<&str>) {
        let producer: FutureProducer = kafka().create().expect("a producer");
        let mut record = FutureRecord::<str, str>::to(&self.name).key(key);
        record.payload = value;
        producer.send(record, WAIT).await.expect("delivered");
    }

    /// Creates the topic before any registry does.
    pub(crate) async fn create(&self, partitions: i32, policy: &str) {
        let admin: AdminClient<DefaultClientContext> = kafka().create().expect("an admin");
        let topic = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1))
            .set("cleanup.policy", policy);
        let created = admin.create_topics([&topic], &AdminOptions::new()).await;
        created.expect("kafka answers").remove(0).expect("created");
    }

    /// Starts a registry that nobody stops: for those that do not start.
    pub(crate) async fn start_registry(&self) -> anyhow::Result<RunningRegistry> {
        registry::start(self.options(), CancellationToken::new()).await
    }

    fn options(&self) -> RegistryOptions {
        RegistryOptions {
            brokers: brokers(),
            listen: "127.0.0.1:0".into(),
            topic: self.name.clone(),
            ..RegistryOptions::default()
        }
    }

    pub(crate) async fn setting(&self, name: &str) -> String {
        let admin: AdminClient<DefaultClientContext> = kafka().create().expect("an admin");
        let described = admin
            .describe_configs([&ResourceSpecifier::Topic(&self.name)], &AdminOptions::new())
            .await
            .expect("kafka answers");
        let resource = described.into_iter().next().expect("one").expect("described");
        resource.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default()
    }
}

impl Drop for TestTopic {
    fn drop(&mut self) {
        let name = self.name.clone();
        let removed = std::thread::spawn(move || {
            let admin: AdminClient<DefaultClientContext> = kafka().create().ok()?;
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
            runtime.block_on(admin.delete_topics(&[&name], &AdminOptions::new())).ok()
        });
        drop(removed.join());
    }
}

fn read_all(topic: &str) -> Vec<(String, Option<String>)> {
    let consumer: BaseConsumer = kafka()
        .set("group.id", "tapeline-tests")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Beginning).expect("assignable");
    consumer.assign(&assignment).expect("assigned");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut records = Vec::new();
    loop {
        match consumer.poll(WAIT).expect("a record or the end in time") {
            Ok(message) => {
                records.push((
                    message.key().map(text).unwrap_or_default(),
                    message.payload().map(text),
                ));
            }
            Err(KafkaError::PartitionEOF(_)) => return records,
            Err(error) => panic!("reading {topic}: {error}"),
        }
    }
}

/// A running registry and a client of its API.
#[derive(Clone)]
pub(crate) struct Api {
    url: String,
    http: reqwest::Client,
    shutdown: CancellationToken,
    running: std::sync::Arc<tokio::sync::Mutex<Option<RunningRegistry>>>,
}

type Answer = (u16, Value);

impl Api {
    pub(crate) async fn start(topic: &TestTopic) -> Api {
        let shutdown = CancellationToken::new();
        let running =
            registry::start(topic.options(), shutdown.clone()).await.expect("the registry starts");
        let http = reqwest::Client::builder().timeout(WAIT).no_proxy().build().expect("a client");
        let url = running.url();
        let running = std::sync::Arc::new(tokio::sync::Mutex::new(Some(running)));
        Api { url, http, shutdown, running }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        // Open connections would be waited for.
        drop(self.http);
        let running = self.running.lock().await.take().expect("stopped once");
        running.stopped().await.expect("stops in order");
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.expect("an answer");
        let status = response.status().as_u16();
        (status, response.json().await.expect("json"))
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.http.get(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(self.http.delete(format!("{}{path}", self.url))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.http.post(format!("{}{path}", self.url)).json(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(self.http.put(format!("{}{path}", self.url)).json(body)).await
    }

    pub(crate) async fn register(&self, subject: &str, schema: &str) -> Answer {
        let path = format!("/subjects/{subject}/versions");
        self.post(&path, &serde_json::json!({"schema": schema})).await
    }

    pub(crate) async fn media_type(&self, path: &str) -> String {
        let response =
            self.http.get(format!("{}{path}", self.url)).send().await.expect("an answer");
        response.headers()["content-type"].to_str().expect("text").to_owned()
    }
}
