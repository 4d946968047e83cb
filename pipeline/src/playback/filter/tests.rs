use super::*;

#[test]
fn a_client_gets_what_it_subscribed_to_in_its_venues_way() {
    let binance = Protocol::Binance;
    assert_eq!(binance.in_address("streams=a@aggTrade/b@depth@100ms").len(), 2);
    let depth = binance.topic(br#"{"stream":"b@depth@100ms","data":{}}"#);
    assert_eq!(depth, Topic::Channels(vec!["b@depth@100ms".to_owned()]));

    let kraken = Protocol::Kraken;
    let change = kraken.message(
        r#"{"event":"subscribe","pair":["XBT/USD"],"subscription":{"name":"book","depth":1000}}"#,
    );
    let mut subscriptions = Subscriptions::default();
    subscriptions.apply(&change);
    for (frame, wanted) in [
        (r#"[1,{"b":[]},"book-1000","XBT/USD"]"#, true),
        (r#"[1,{"a":[]},{"b":[]},"book-1000","XBT/USD"]"#, true),
        (r#"[1,{"b":[]},"book-10","XBT/USD"]"#, false),
        (r#"[1,[],"trade","XBT/USD"]"#, false),
        (r#"{"event":"heartbeat"}"#, true),
        (r#"{"channelName":"trade","event":"subscriptionStatus","pair":"XBT/USD"}"#, false),
    ] {
        assert_eq!(subscriptions.wants(&kraken.topic(frame.as_bytes())), wanted, "{frame}");
    }

    let upbit = Protocol::Upbit;
    let change = upbit.message(r#"[{"ticket":"x"},{"type":"trade","codes":["KRW-BTC"]}]"#);
    assert_eq!(change.add, ["trade KRW-BTC"]);
    let topic = upbit.topic(br#"{"ty":"trade","cd":"KRW-BTC"}"#);
    assert_eq!(topic, Topic::Channels(vec!["trade KRW-BTC".to_owned()]));
}

#[test]
fn nonsense_is_answered_as_the_venue_would() {
    for spec in &crate::venue::VENUES {
        let protocol = Protocol::of(spec.name).expect("every venue can be played");
        assert_eq!(protocol.message("{").replies.len(), 1);
        assert!(serde_json::from_str::<Value>(&protocol.not_found()).is_ok());
    }
    assert_eq!(Protocol::Kraken.message("{}").replies.len(), 1);
    assert_eq!(Protocol::Upbit.message("[]").replies.len(), 1);
}

#[test]
fn what_is_subscribed_is_what_recorded_frames_are_about() {
    for (venue, message, wanted, unwanted) in [
        (
            "BITHUMB",
            r#"{"type":"transaction","symbols":["BTC_KRW"]}"#,
            r#"{"type":"transaction","content":{"list":[{"symbol":"X_KRW"},{"symbol":"BTC_KRW"}]}}"#,
            r#"{"type":"transaction","content":{"list":[{"symbol":"X_KRW"}]}}"#,
        ),
        (
            "COINBASE",
            r#"{"type":"subscribe","product_ids":["BTC-USD"],"channels":["level2_batch"]}"#,
            r#"{"type":"l2update","product_id":"BTC-USD","changes":[]}"#,
            r#"{"type":"match","product_id":"BTC-USD"}"#,
        ),
        (
            "DERIBIT",
            r#"{"method":"public/subscribe","params":{"channels":["book.BTC-3JUN22-1-C.100ms"]}}"#,
            r#"{"method":"subscription","params":{"channel":"book.BTC-3JUN22-1-C.raw","data":{}}}"#,
            r#"{"method":"subscription","params":{"channel":"book.BTC-3JUN22-1-P.raw","data":{}}}"#,
        ),
        (
            "OKX",
            r#"{"op":"subscribe","args":[{"channel":"books","instId":"BTC-USDT"}]}"#,
            r#"{"arg":{"channel":"books","instId":"BTC-USDT"},"data":[]}"#,
            r#"{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}"#,
        ),
    ] {
        let protocol = Protocol::of(venue).expect("known");
        let mut subscriptions = Subscriptions::default();
        subscriptions.apply(&protocol.message(message));
        assert!(subscriptions.wants(&protocol.topic(wanted.as_bytes())), "{venue}");
        assert!(!subscriptions.wants(&protocol.topic(unwanted.as_bytes())), "{venue}");
        assert!(subscriptions.wants(&protocol.topic(b"{}")), "{venue}");
    }
}
