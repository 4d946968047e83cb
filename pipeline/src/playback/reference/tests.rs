use super::*;

fn text(text: &str) -> Payload {
    Payload::Text(text.to_owned())
}

/// A book in a venue's words: its name, its frames, and what who begins after them gets.
const BOOKS: [(Protocol, &str, [&str; 2], &str); 6] = [
    (
        Protocol::Coinbase,
        "level2 A-B",
        [
            r#"{"type":"snapshot","product_id":"A-B","asks":[["2.50","1"]],"bids":[["1.00","3"],["0.9","4"]]}"#,
            r#"{"type":"l2update","product_id":"A-B","changes":[["buy","1.00","0.000"],["sell","2.4","5.0"]],"time":"t"}"#,
        ],
        r#"{"type":"snapshot","product_id":"A-B","asks":[["2.4","5.0"],["2.50","1"]],"bids":[["0.9","4"]]}"#,
    ),
    (
        Protocol::Deribit,
        "book.A-1-C",
        [
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.A-1-C.raw","data":{"type":"snapshot","timestamp":1,"instrument_name":"A-1-C","change_id":7,"bids":[["new",0.10,4714.0]],"asks":[]}}}"#,
            r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.A-1-C.raw","data":{"type":"change","timestamp":2,"prev_change_id":7,"instrument_name":"A-1-C","change_id":9,"bids":[["delete",0.1,0.0],["new",0.2,1.0]],"asks":[["new",0.3,2.5]]}}}"#,
        ],
        r#"{"jsonrpc":"2.0","method":"subscription","params":{"channel":"book.A-1-C.raw","data":{"type":"snapshot","timestamp":2,"instrument_name":"A-1-C","change_id":9,"bids":[["new",0.2,1.0]],"asks":[["new",0.3,2.5]]}}}"#,
    ),
    (
        Protocol::Kraken,
        "book-2 A/B",
        [
            r#"[3,{"as":[["2.0","1.0","5.1"]],"bs":[["1.0","1.00","5.2"],["0.9","1","5.0"]]},"book-2","A\/B"]"#,
            r#"[3,{"a":[["2.1","3.0","6.1","r"]]},{"b":[["1.1","2.0","6.2"]],"c":"1"},"book-2","A\/B"]"#,
        ],
        r#"[3,{"as":[["2.0","1.0","5.1"],["2.1","3.0","6.1"]],"bs":[["1.1","2.0","6.2"],["1.0","1.00","5.2"]]},"book-2","A/B"]"#,
    ),
    (
        Protocol::Okx,
        "books A-B",
        [
            r#"{"arg":{"channel":"books","instId":"A-B"},"action":"snapshot","data":[{"asks":[["3366.8","9","0","1"]],"bids":[["3366.1","7","0","2"]],"ts":"1","checksum":1,"seqId":4,"prevSeqId":-1}]}"#,
            r#"{"arg":{"channel":"books","instId":"A-B"},"action":"update","data":[{"asks":[["3368","8","0","1"],["3372","8.50","0","3"]],"bids":[],"ts":"2","checksum":5,"seqId":6,"prevSeqId":4}]}"#,
        ],
        // The checksum of `3366.1:7:3366.8:9:3368:8:3372:8.50`.
        r#"{"arg":{"channel":"books","instId":"A-B"},"action":"snapshot","data":[{"asks":[["3366.8","9","0","1"],["3368","8","0","1"],["3372","8.50","0","3"]],"bids":[["3366.1","7","0","2"]],"ts":"2","checksum":CHECKSUM,"seqId":6,"prevSeqId":-1}]}"#,
    ),
    (
        Protocol::Upbit,
        "orderbook A-B",
        [
            r#"{"ty":"orderbook","cd":"A-B","tms":1,"obu":[],"st":"REALTIME"}"#,
            r#"{"ty":"orderbook","cd":"A-B","tms":2,"obu":[],"st":"REALTIME"}"#,
        ],
        r#"{"ty":"orderbook","cd":"A-B","tms":2,"obu":[],"st":"SNAPSHOT"}"#,
    ),
    (
        Protocol::Bithumb,
        "orderbooksnapshot A_B",
        [
            r#"{"type":"orderbooksnapshot","content":{"symbol":"A_B","datetime":"1","asks":[],"bids":[]}}"#,
            r#"{"type":"orderbooksnapshot","content":{"symbol":"A_B","datetime":"2","asks":[],"bids":[]}}"#,
        ],
        r#"{"type":"orderbooksnapshot","content":{"symbol":"A_B","datetime":"2","asks":[],"bids":[]}}"#,
    ),
];

/// Every venue's book, begun by a snapshot and changed by one message: what a later subscriber gets is what the
/// venue would write, and read as a snapshot it is the same book.
#[test]
fn who_begins_in_the_middle_gets_the_book_as_it_is_in_the_venues_own_words() {
    for (protocol, channel, frames, expected) in BOOKS {
        let mut books = Books::default();
        assert_eq!(books.snapshot(protocol, channel), None, "nothing is known before the first");
        for frame in frames {
            let change = Change::read(protocol, &text(frame)).expect(frame);
            assert_eq!(change.book(), channel);
            books.apply(protocol, &change);
        }
        let checksum = crc32fast::hash(b"3366.1:7:3366.8:9:3368:8:3372:8.50").cast_signed();
        let expected = expected.replace("CHECKSUM", &checksum.to_string());
        let snapshot = books.snapshot(protocol, channel).expect("known by now");
        assert_eq!(snapshot, text(&expected));
        let again = Change::read(protocol, &snapshot).expect("a snapshot of a book");
        assert!(again.is_whole());
        books.apply(protocol, &again);
        assert_eq!(books.snapshot(protocol, channel), Some(snapshot));
    }
}

#[test]
fn a_request_for_a_book_is_answered_from_the_recorded_one_and_what_followed_it() {
    let protocol = Protocol::Binance;
    let path = "/api/v3/depth?limit=2&symbol=AB";
    let body = r#"{"lastUpdateId":5,"bids":[["1.0","1"],["0.9","1"]],"asks":[["2.0","1"]]}"#;
    let mut books = Books::default();
    books.apply(protocol, &Change::opening(protocol, path, body).expect("a book"));
    for delta in [
        // The opening book holds this one.
        r#"{"stream":"ab@depth@100ms","data":{"U":4,"u":5,"b":[["0.9","0"]],"a":[]}}"#,
        r#"{"stream":"ab@depth@100ms","data":{"U":6,"u":8,"b":[["1.1","2"]],"a":[["2.0","0"]]}}"#,
    ] {
        books.apply(protocol, &Change::read(protocol, &text(delta)).expect("a delta"));
    }
    let answer = r#"{"lastUpdateId":8,"bids":[["1.1","2"],["1.0","1"]],"asks":[]}"#;
    assert_eq!(books.answer(protocol, path).as_deref(), Some(answer));
    assert_eq!(books.answer(protocol, "/api/v3/depth?symbol=XY"), None);
    assert!(Change::read(protocol, &text(r#"{"stream":"ab@aggTrade","data":{}}"#)).is_none());
}
