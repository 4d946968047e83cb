//! Header names are bytes to Kafka; our own client would only write text.

use std::ffi::{CString, c_int};
use std::time::Duration;

use rdkafka::bindings as ffi;
use rdkafka::producer::{BaseProducer, Producer as _};
use tapeline::wiring::StageName;
use tapeline_schemas::{Kind, encode, headers, partition_for, wire};

use crate::common::Pipeline;
use crate::look::{self, trade};

const PARTITIONS: i32 = 4;

/// Sends a record with one header, as a client in C can.
fn send(pipeline: &Pipeline, topic: &str, key: &str, value: &[u8], name: &[u8]) {
    let producer: BaseProducer = pipeline.context.config.kafka.client().create().expect("producer");
    let (topic, name) = (CString::new(topic).expect("no NUL"), CString::new(name).expect("no NUL"));
    // SAFETY: librdkafka copies everything that is pointed to before the call returns, and the
    // arguments are those that each type of value takes.
    let error = unsafe {
        ffi::rd_kafka_producev(
            producer.client().native_ptr(),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_TOPIC,
            topic.as_ptr(),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
            partition_for(key.as_bytes(), PARTITIONS),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
            ffi::RD_KAFKA_MSG_F_COPY as c_int,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
            value.as_ptr(),
            value.len(),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY,
            key.as_ptr(),
            key.len(),
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER,
            name.as_ptr(),
            c"value".as_ptr(),
            5_isize,
            ffi::rd_kafka_vtype_t::RD_KAFKA_VTYPE_END,
        )
    };
    assert_eq!(error, ffi::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR);
    producer.flush(Duration::from_secs(10)).expect("delivered");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_header_name_that_is_no_text_stops_nobody_invariant_1() {
    let pipeline = Pipeline::new("header_name").await;
    let raw = look::raw_topic(&pipeline, Kind::Trade);
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    for (id, name) in [&b"plain"[..], b"\xff\xfe", b"tl-\xc0", b""].into_iter().enumerate() {
        let event = trade("TEST", "BTC-USD", id as i64, "1", 1_700_000_000_000_000);
        let mut value = Vec::new();
        wire::put_header(pipeline.context.schema_ids[&Kind::Trade], &mut value);
        value.extend_from_slice(&encode(&event));
        send(&pipeline, &raw, "TEST:BTC-USD", &value, name);
    }
    let audit = look::all_accounted(&pipeline, 4).await;
    assert_eq!(audit.outcomes["stored"], 4, "{audit:?}");
    let seen = look::read_kind(&pipeline, Kind::Trade);
    let origins: Vec<_> = seen.iter().map(|seen| seen.headers[headers::ORIGIN].as_str()).collect();
    assert_eq!(origins, ["0", "1", "2", "3"]);
    assert_eq!(seen[0].headers["plain"], "value");
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}
