//! The registry against a real broker (`TAPELINE__KAFKA__BROKERS`, or the services script's).

mod registry_support;

use registry_support::{Api, TestTopic, trade_schema};
use serde_json::{Value, json};
use tapeline::registry_client::RegistryClient;

const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int","default":0}]}"#;
const CLASH: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"c","type":"string"}]}"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_has_one_id_everywhere_and_keeps_it_across_restarts() {
    let topic = TestTopic::new("ids");
    let api = Api::start(&topic).await;
    assert_eq!(api.register("a-value", V1).await, (200, json!({"id": 1})));
    assert_eq!(api.register("b-value", V2).await, (200, json!({"id": 2})));
    let spaced = V1.replace(',', " ,\n ");
    assert_eq!(api.register("b-value-2", &spaced).await, (200, json!({"id": 1})));
    assert_eq!(api.register("a-value", V1).await, (200, json!({"id": 1})));
    assert_eq!(api.get("/subjects/a-value/versions").await, (200, json!([1])));
    api.stop().await;

    let api = Api::start(&topic).await;
    assert_eq!(api.get("/subjects").await, (200, json!(["a-value", "b-value", "b-value-2"])));
    assert_eq!(api.get("/schemas/ids/1").await, (200, json!({"schema": V1})));
    assert_eq!(api.get("/schemas/ids/1/subjects").await, (200, json!(["a-value", "b-value-2"])));
    let holders =
        json!([{"subject": "a-value", "version": 1}, {"subject": "b-value-2", "version": 1}]);
    assert_eq!(api.get("/schemas/ids/1/versions").await, (200, holders));
    assert_eq!(api.register("a-value", V1).await, (200, json!({"id": 1})));
    assert_eq!(api.register("c-value", trade_schema()).await, (200, json!({"id": 3})));
    let latest = json!({"subject": "a-value", "version": 1, "id": 1, "schema": V1});
    assert_eq!(api.get("/subjects/a-value/versions/latest").await, (200, latest.clone()));
    assert_eq!(api.post("/subjects/a-value", &json!({"schema": spaced})).await, (200, latest));
    assert_eq!(
        api.get("/subjects/a-value/versions/1/schema").await.1,
        serde_json::from_str::<Value>(V1).expect("json")
    );
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incompatible_schema_is_refused_at_every_level_that_says_so() {
    let topic = TestTopic::new("levels");
    let api = Api::start(&topic).await;
    assert_eq!(api.get("/config").await, (200, json!({"compatibilityLevel": "BACKWARD"})));
    api.register("s", V1).await;
    let (status, refusal) = api.register("s", CLASH).await;
    assert_eq!((status, &refusal["error_code"]), (409, &json!(409)), "{refusal}");
    let check = "/compatibility/subjects/s/versions/latest?verbose=true";
    let (status, verdict) = api.post(check, &json!({"schema": CLASH})).await;
    assert_eq!((status, &verdict["is_compatible"]), (200, &json!(false)));
    assert!(verdict["messages"][0].as_str().is_some_and(|m| m.contains("new schema cannot read")));
    let (_, verdict) = api.post("/compatibility/subjects/s/versions", &json!({"schema": V2})).await;
    assert_eq!(verdict, json!({"is_compatible": true}));

    let level = json!({"compatibility": "forward"});
    assert_eq!(api.put("/config/s", &level).await, (200, json!({"compatibility": "FORWARD"})));
    assert_eq!(api.register("s", CLASH).await.0, 200);
    assert_eq!(api.put("/config/s", &json!({"compatibility": "BACKWARD_TRANSITIVE"})).await.0, 200);
    let drops_c = V1.replace("\"int\"", "\"string\"");
    assert_eq!(api.register("s", &drops_c).await.0, 409);
    let (status, was) = api.delete("/config/s").await;
    assert_eq!((status, was), (200, json!({"compatibilityLevel": "BACKWARD_TRANSITIVE"})));
    assert_eq!(api.get("/config/s").await.1["error_code"], 40408);
    let global = api.get("/config/s?defaultToGlobal=true").await;
    assert_eq!(global, (200, json!({"compatibilityLevel": "BACKWARD"})));

    let other_scale = trade_schema().replace("\"scale\": 18", "\"scale\": 8");
    assert_ne!(other_scale, trade_schema());
    assert_eq!(api.register("money", trade_schema()).await.0, 200);
    assert_eq!(api.register("money", &other_scale).await.0, 409);
    api.put("/config", &json!({"compatibility": "NONE"})).await;
    assert_eq!(api.register("money", &other_scale).await.0, 200);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_carry_confluents_codes() {
    let topic = TestTopic::new("codes");
    let api = Api::start(&topic).await;
    api.register("s", V1).await;
    let schema = json!({"schema": V2});
    for (code, (status, body)) in [
        (404, api.get("/nowhere").await),
        (405, api.put("/subjects", &schema).await),
        (40401, api.get("/subjects/none/versions").await),
        (40401, api.get("/subjects/none/versions/1").await),
        (40401, api.delete("/subjects/none").await),
        (40401, api.post("/subjects/none", &schema).await),
        (40402, api.get("/subjects/s/versions/2").await),
        (40403, api.get("/schemas/ids/99").await),
        (40403, api.post("/subjects/s", &schema).await),
        (40405, api.delete("/subjects/s?permanent=true").await),
        (40407, api.delete("/subjects/s/versions/1?permanent=true").await),
        (42201, api.register("s", "{\"type\":\"nonsense\"}").await),
        (
            42201,
            api.post("/subjects/s/versions", &json!({"schema": V1, "schemaType": "JSON"})).await,
        ),
        (42202, api.get("/subjects/s/versions/0").await),
        (42202, api.get("/subjects/s/versions/newest").await),
        (42203, api.put("/config", &json!({"compatibility": "SIDEWAYS"})).await),
        (42204, api.put("/mode", &json!({"mode": "IMPORT"})).await),
        (42208, api.register("__GLOBAL", V1).await),
        (422, api.post("/subjects/s/versions", &json!({"no": "schema"})).await),
    ] {
        assert_eq!(body["error_code"], code, "{body}");
        let expected = if code > 999 { code / 100 } else { code };
        assert_eq!(i32::from(status), expected, "{body}");
        assert!(body["message"].is_string());
    }
    assert_eq!(api.media_type("/subjects").await, "application/vnd.schemaregistry.v1+json");
    assert_eq!(api.put("/mode", &json!({"mode": "READONLY"})).await.0, 200);
    assert_eq!(api.register("s", V2).await.1["error_code"], 42205);
    assert_eq!(api.put("/mode", &json!({"mode": "READWRITE"})).await.0, 200);
    assert_eq!(api.register("s", V2).await.0, 200);
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_marks_first_and_removes_then() {
    let topic = TestTopic::new("deleting");
    let api = Api::start(&topic).await;
    let subject = "a%2Fb";
    api.register(subject, V1).await;
    api.register(subject, V2).await;
    assert_eq!(api.get("/subjects").await.1, json!(["a/b"]));
    assert_eq!(api.delete("/subjects/a%2Fb/versions/2").await, (200, json!(2)));
    assert_eq!(api.delete("/subjects/a%2Fb/versions/2").await.1["error_code"], 40406);
    assert_eq!(api.get("/subjects/a%2Fb/versions/latest").await.1["version"], 1);
    assert_eq!(api.get("/subjects/a%2Fb/versions?deleted=True").await.1, json!([1, 2]));
    assert_eq!(api.delete("/subjects/a%2Fb").await, (200, json!([1])));
    assert_eq!(api.delete("/subjects/a%2Fb").await.1["error_code"], 40404);
    assert_eq!(api.get("/subjects").await.1, json!([]));
    assert_eq!(api.get("/schemas/ids/2").await.0, 200, "records may still need it");
    assert_eq!(api.register(subject, V2).await, (200, json!({"id": 2})));
    assert_eq!(api.get("/subjects/a%2Fb/versions").await.1, json!([3]));
    api.delete("/subjects/a%2Fb").await;
    assert_eq!(api.delete("/subjects/a%2Fb?permanent=true").await, (200, json!([1, 2, 3])));
    assert_eq!(api.get("/schemas/ids/2").await.1["error_code"], 40403);
    assert_eq!(api.register(subject, V2).await, (200, json!({"id": 3})), "ids are not given twice");
    api.stop().await;
    let api = Api::start(&topic).await;
    assert_eq!(api.get("/subjects/a%2Fb/versions?deleted=true").await.1, json!([1]));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topic_holds_what_confluent_and_karapace_would_have_written() {
    let topic = TestTopic::new("format");
    let api = Api::start(&topic).await;
    api.register("s", "{ \"type\": \"int\" }").await;
    api.put("/config", &json!({"compatibility": "FULL"})).await;
    api.put("/config/s", &json!({"compatibility": "NONE"})).await;
    api.delete("/config/s").await;
    api.delete("/subjects/s/versions/1").await;
    api.delete("/subjects/s/versions/1?permanent=true").await;
    api.register("s", "\"long\"").await;
    api.delete("/subjects/s").await;
    api.stop().await;
    let schema = |version, id, text: &str, deleted| {
        let text = Value::from(text);
        format!(
            r#"{{"subject":"s","version":{version},"id":{id},"schema":{text},"deleted":{deleted}}}"#
        )
    };
    let key =
        |version| format!(r#"{{"keytype":"SCHEMA","subject":"s","version":{version},"magic":1}}"#);
    let level = |subject| format!(r#"{{"keytype":"CONFIG","subject":{subject},"magic":0}}"#);
    let deleted = r#"{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}"#.to_owned();
    let expected = [
        (key(1), Some(schema(1, 1, r#"{"type":"int"}"#, false))),
        (level("null"), Some(r#"{"compatibilityLevel":"FULL"}"#.into())),
        (level("\"s\""), Some(r#"{"compatibilityLevel":"NONE"}"#.into())),
        (level("\"s\""), None),
        (key(1), Some(schema(1, 1, r#"{"type":"int"}"#, true))),
        (key(1), None),
        (key(1), Some(schema(1, 2, "\"long\"", false))),
        (deleted, Some(r#"{"subject":"s","version":1}"#.into())),
    ];
    assert_eq!(topic.records().await, expected);
    assert_eq!(topic.setting("cleanup.policy").await, "compact");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_registrys_records_are_respected() {
    let topic = TestTopic::new("foreign");
    let api = Api::start(&topic).await;
    api.register("ours", V1).await;
    // As Karapace before its key format was corrected, and with fields that we have no use for.
    let key = r#"{"subject":"theirs","version":1,"magic":1,"keytype":"SCHEMA"}"#;
    let value =
        r#"{"subject":"theirs","version":1,"id":41,"md5":"x","schema":"\"int\"","deleted":false}"#;
    topic.produce(key, Some(value)).await;
    topic.produce(r#"{"keytype":"NOOP","magic":0}"#, None).await;
    topic.produce("not json", Some("either")).await;
    topic
        .produce(
            r#"{"keytype":"CONFIG","subject":null,"magic":0}"#,
            Some(r#"{"alias":null,"compatibilityLevel":"NONE"}"#),
        )
        .await;
    assert_eq!(api.register("ours", V2).await, (200, json!({"id": 42})));
    assert_eq!(api.get("/schemas/ids/41").await, (200, json!({"schema": "\"int\""})));
    assert_eq!(api.get("/config").await.1, json!({"compatibilityLevel": "NONE"}));
    assert_eq!(api.delete("/subjects/theirs/versions/1").await.0, 200);
    let records = topic.records().await;
    let (last_key, last_value) = records.last().expect("records");
    assert_eq!(last_key, key, "the same bytes, or compaction would keep both");
    let last_value: Value =
        serde_json::from_str(last_value.as_deref().expect("a value")).expect("json");
    assert_eq!((&last_value["md5"], &last_value["deleted"]), (&json!("x"), &json!(true)));
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_at_once_are_serialised() {
    let topic = TestTopic::new("parallel");
    let api = Api::start(&topic).await;
    let writes = (0..20).map(|n| {
        let api = api.clone();
        tokio::spawn(async move {
            let text = format!(r#"{{"type":"fixed","name":"F{}","size":4}}"#, n / 2);
            (n / 2, api.register(&format!("s{n}"), &text).await)
        })
    });
    let mut ids = std::collections::BTreeMap::new();
    for write in writes.collect::<Vec<_>>() {
        let (schema, (status, body)) = write.await.expect("no panic");
        assert_eq!(status, 200, "{body}");
        let id = body["id"].as_u64().expect("an id");
        assert_eq!(*ids.entry(schema).or_insert(id), id, "one schema, one id");
    }
    let all: std::collections::BTreeSet<u64> = ids.values().copied().collect();
    assert_eq!(all, (1..=10).collect());
    api.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_id_is_told_from_a_registry_that_is_down() {
    let topic = TestTopic::new("client");
    let api = Api::start(&topic).await;
    let client = RegistryClient::new(api.url(), RegistryClient::DEFAULT_TIMEOUT).expect("a client");
    assert_eq!(client.register("s", trade_schema()).await.expect("registers"), 1);
    assert_eq!(client.register("s", trade_schema()).await.expect("registers"), 1);
    let known = client.lookup(1).await.expect("answers").expect("known");
    assert_eq!(
        serde_json::from_str::<Value>(&known).expect("json"),
        serde_json::from_str::<Value>(trade_schema()).expect("json")
    );
    assert_eq!(client.lookup(7).await.expect("answers"), None);
    let scale = trade_schema().replace("\"scale\": 18", "\"scale\": 8");
    let refused = client.register("s", &scale).await.expect_err("incompatible");
    assert!(!refused.is_retryable(), "{refused}");
    api.stop().await;
    assert!(client.lookup(1).await.is_err(), "down is not unknown");
    assert!(client.register("s", trade_schema()).await.expect_err("down").is_retryable());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_would_lose_schemas_is_refused() {
    for (name, partitions, policy, complaint) in
        [("policy", 1, "delete", "set it to compact"), ("partitions", 2, "compact", "exactly one")]
    {
        let topic = TestTopic::new(name);
        topic.create(partitions, policy).await;
        let error = topic.start_registry().await.expect_err("refused").to_string();
        assert!(error.contains(complaint), "{error}");
    }
}
