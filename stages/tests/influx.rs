//! `influx` against a listener that answers as told: requests byte for byte, and what each answer
//! makes of the batch (S5). A real InfluxDB is in `pipeline/tests/it/influx.rs`.

mod common;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::{Kept, NOON, at, book, event, gather, taught, ticker, trade};
use tapeline_schemas::{BookAction, Kind};
use tapeline_stages::flow::{Sink, SinkError, flush};
use tapeline_stages::influx::Influx;
use tapeline_stages::sinks::influx::{InfluxSettings, InfluxSink, InfluxTarget};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Keeps every request; answers with what `answer` says of its body.
struct Listener {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Listener {
    async fn new(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepts");
                let mut request = Vec::new();
                while !is_whole(&request) {
                    assert!(stream.read_buf(&mut request).await.expect("reads") > 0, "cut off");
                }
                let request = String::from_utf8(request).expect("text");
                let answer = answer(request.split_once("\r\n\r\n").expect("a body").1);
                seen.lock().expect("sound").push(request);
                stream.write_all(answer.as_bytes()).await.expect("answers");
            }
        });
        Listener { address, requests }
    }

    fn sink(&self, target: InfluxTarget) -> InfluxSink {
        let url = format!("http://{}", self.address);
        let answer = Duration::from_secs(30);
        InfluxSink::new(InfluxSettings { url, target, trusted: Vec::new(), answer })
            .expect("settings")
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().expect("sound").clone()
    }
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() == length.expect("a length").parse::<usize>().expect("a number")
}

/// A whole answer, after which the connection ends.
fn status(line: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "HTTP/1.1 {line}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
    )
}

fn v1() -> InfluxTarget {
    let login = Some(("writer".to_owned(), "hunter2".to_owned()));
    InfluxTarget::V1 { database: "market data".to_owned(), login }
}

fn v2() -> InfluxTarget {
    let [org, bucket, token] = ["desk", "ticks&more", "hunter2"].map(str::to_owned);
    InfluxTarget::V2 { org, bucket, token }
}

#[tokio::test]
async fn requests_of_both_versions_are_what_the_api_asks_for_byte_for_byte_s5() {
    let listener = Listener::new(|_| status("204 No Content", "", "")).await;
    let events = [
        event(Kind::Trade, 3, 7, &trade("BTC-USD", 17_001, "100.000000000000000001")),
        event(Kind::Ticker, 3, 8, &ticker("BTC-USD", "100.5", NOON)),
        event(Kind::Book, 3, 16_009, &book("BTC-USD", BookAction::Top, NOON)),
        event(Kind::Book, 3, 16_010, &book("BTC-USD", BookAction::Delta, NOON)),
    ];
    let batch = gather(&mut taught(Influx::new()), &events);
    for target in [v2(), v1()] {
        listener.sink(target).write(batch.out(), &mut []).await.expect("written");
    }
    let time = NOON / 1_000 + 17_001;
    let lines = format!(
        "trade,exchange=KRAKEN,symbol=BTC-USD,side=buy,lane=1 price=100.000000000000000001,amount=0.5,\
         trade_id=\"17001\",type=\"limit\",sequence=17001i,receive_time={time}007i,partition=3i,origin=7i {time}000001\n\
         ticker,exchange=KRAKEN,symbol=BTC-USD,lane=0 last=100.5,price_change_percent_24h=-1.25,\
         receive_time={received}i,partition=3i,origin=8i {NOON}008\n\
         book,exchange=KRAKEN,symbol=BTC-USD,lane=0 bid=10.5,bid_amount=0.000000000000000001,\
         bids=\"[[\\\"10.5\\\",\\\"0.000000000000000001\\\"],[\\\"10\\\",\\\"0.000000000000000001\\\"]]\",asks=\"[]\",\
         sequence=3i,receive_time={received}i,partition=3i,origin=16009i {NOON}009\n",
        received = NOON + 7,
    );
    let request = |path: &str, authorization: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nauthorization: {authorization}\r\n\
             content-type: text/plain; charset=utf-8\r\naccept: */*\r\nhost: {}\r\n\
             content-length: {}\r\n\r\n{lines}",
            listener.address,
            lines.len()
        )
    };
    let expected = [
        request("/api/v2/write?org=desk&bucket=ticks%26more&precision=ns", "Token hunter2"),
        request("/write?db=market+data&precision=ns", "Basic d3JpdGVyOmh1bnRlcjI="),
    ];
    assert_eq!(listener.requests(), expected);
}

#[tokio::test]
async fn lines_that_are_refused_are_found_by_halving_and_kept_and_the_rest_is_written_s5() {
    let listener = Listener::new(|body| {
        if body.lines().count() > 20 {
            return status("413 Request Entity Too Large", "", "{\"error\":\"too large\"}");
        }
        // As both versions do: the good lines of such a request have been taken.
        match body.contains("\"13\"") || body.contains("\"77\"") {
            true => {
                status("400 Bad Request", "", "{\"error\":\"partial write: beyond retention\"}")
            }
            false => status("204 No Content", "", ""),
        }
    })
    .await;
    let mut batch = gather(&mut taught(Influx::new()), &common::trades(0, 100));
    let (mut sink, mut kept) = (listener.sink(v1()), Kept::default());
    let durable = flush("influx", &mut sink, &mut kept, &mut batch).await.expect("durable");
    let refused: Vec<_> = kept.0.iter().map(|rejected| rejected.offset).collect();
    assert_eq!(refused, [13, 77]);
    let first = &kept.0[0];
    assert_eq!((first.at, first.key.as_deref()), (at(Kind::Trade, 0), Some(&b"K"[..])));
    assert!(first.reject.detail.contains("beyond retention"), "{}", first.reject.detail);
    let spans = durable.spans();
    assert_eq!(spans[0].counts[..5], [98, 0, 0, 0, 2], "taken and quarantined");
    // After the refusal the rest is written once more, in requests without the two.
    let requests = listener.requests();
    let taken = requests.iter().rev().filter(|request| request.lines().count() <= 20);
    let last: Vec<&str> = taken.take(8).map(String::as_str).collect();
    let written = last.concat().lines().filter(|line| line.starts_with("trade,")).count();
    assert_eq!((written, last.concat().contains("\"13\"")), (98, false));
}

#[tokio::test]
async fn every_answer_means_waiting_or_stopping_and_none_tells_a_secret_s5() {
    let cases = [
        ("401 Unauthorized", "", "authorization failed", Some("influx.password, or influx.token")),
        ("403 Forbidden", "", "not authorized", Some("influx.password, or influx.token")),
        ("404 Not Found", "", "database not found", Some("create influx.database")),
        ("302 Found", "location: /login\r\n", "", Some("check influx.url")),
        ("405 Method Not Allowed", "", "", Some("check influx.url")),
        (
            "400 Bad Request",
            "",
            "partial write: field type conflict: input field \"price\"",
            Some("a database of its own"),
        ),
        (
            "422 Unprocessable Entity",
            "",
            "failure: partial write: max-series-per-database limit exceeded: (1000000)",
            Some("raise the server's limit"),
        ),
        ("408 Request Timeout", "", "", None),
        ("429 Too Many Requests", "", "over quota", None),
        ("500 Internal Server Error", "", "cache-max-memory-size exceeded", None),
        ("503 Service Unavailable", "", "", None),
    ];
    let batch = gather(&mut taught(Influx::new()), &common::trades(0, 3));
    for (line, headers, body, advice) in cases {
        let listener = Listener::new(move |_| status(line, headers, body)).await;
        for target in [v1(), v2()] {
            let answer = listener.sink(target).write(batch.out(), &mut []).await;
            let told = match (answer.expect_err(line), advice) {
                (SinkError::Fatal(told), Some(advice)) => {
                    assert!(told.contains(advice), "{told}");
                    told
                }
                (SinkError::Retry(told), None) => told,
                (other, _) => panic!("{line}: {other:?}"),
            };
            assert!(told.contains(&line[..3]) && !told.contains("hunter2"), "{told}");
        }
        assert_eq!(listener.requests().len(), 2, "{line}: no line is looked for");
    }
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr();
    let url = format!("http://{}", closed.expect("an address"));
    let settings =
        InfluxSettings { url, target: v2(), trusted: Vec::new(), answer: Duration::from_secs(5) };
    let mut sink = InfluxSink::new(settings).expect("settings");
    match sink.write(batch.out(), &mut []).await.expect_err("nobody listens") {
        SinkError::Retry(told) => assert!(told.contains("refused"), "{told}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_rest_is_given_it_s5() {
    let first = Mutex::new(true);
    let listener =
        Listener::new(move |_| match std::mem::take(&mut *first.lock().expect("sound")) {
            true => status("503 Service Unavailable", "retry-after: 1\r\n", ""),
            false => status("204 No Content", "", ""),
        })
        .await;
    let mut batch = gather(&mut taught(Influx::new()), &common::trades(0, 3));
    let (mut sink, mut kept) = (listener.sink(v1()), Kept::default());
    let began = Instant::now();
    flush("influx", &mut sink, &mut kept, &mut batch).await.expect("durable");
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!(listener.requests().len(), 2);
}
