//! What producers push (T7, T9, T10): through the whole pipeline, digit for digit.

use tapeline::wiring::StageName;
use tapeline_schemas::{
    Flow, Kind, Micros, Money, Order, OrderSide, OrderStatus, Portfolio, Position, PositionSide,
    Prediction, Record, encode, partition_for,
};

use crate::common::Pipeline;
use crate::look::{self, Plain};

/// 2023-11-14T00:00:00Z
const DAY: i64 = 1_699_920_000_000_000;
const SECOND: i64 = 1_000_000;
const USER: &str = "0b5fbc1e-8d5c-4f43-9a53-0123456789ab";
const TABLES: [&str; 6] = [
    "supply_demand",
    "predictions",
    "portfolio_status",
    "current_positions",
    "position_history",
    "orders",
];

fn money(text: &str) -> Money {
    text.parse().expect("money")
}

fn after(seconds: i64) -> Micros {
    Micros(DAY + seconds * SECOND)
}

fn flow(institutions: &str, published: i64) -> Flow<'static> {
    Flow {
        exchange: "KRX".into(),
        symbol: "005930-KRW".into(),
        date: Micros(DAY),
        institution_amount: money(institutions),
        foreign_amount: money("-99999999999999999999.999999999999999999"),
        individual_amount: money("0.000000000000000001"),
        venue_time: after(published),
        receive_time: after(published),
    }
}

fn prediction(value: &str, confidence: &str) -> Prediction<'static> {
    Prediction {
        exchange: "KRAKEN".into(),
        symbol: "BTC-USD".into(),
        model_id: "lstm-7".into(),
        prediction_type: "price".into(),
        predicted_value: money(value),
        confidence: money(confidence),
        venue_time: after(1),
        receive_time: after(1),
    }
}

fn portfolio(pnl: &str) -> Portfolio<'static> {
    Portfolio {
        user_id: USER.into(),
        asset_type: "CRYPTO".into(),
        position_size: money("-1.5"),
        entry_price: money("30000.123456789012345678"),
        current_price: money("30001"),
        pnl: money(pnl),
        venue_time: after(1),
        receive_time: after(1),
    }
}

fn position(amount: &str, told: i64) -> Position<'static> {
    let mut position = Position {
        exchange: "BINANCE".into(),
        symbol: "BTC-USDT".into(),
        side: PositionSide::Long,
        amount: money(amount),
        entry_price: money("30000.1"),
        mark_price: Some(money("30000.2")),
        unrealized_pnl: Some(money("-0.000000000000000001")),
        realized_pnl: None,
        leverage: Some(money("12.5")),
        margin_type: Some("isolated".into()),
        liquidation_price: None,
        opened_at: after(0),
        closed_amount: None,
        exit_price: None,
        fees: None,
        venue_time: after(told),
        receive_time: after(told),
    };
    if position.is_closed() {
        position.closed_amount = Some(money("2.000000000000000001"));
        position.exit_price = Some(money("31000"));
        position.realized_pnl = Some(money("1999.8"));
        position.fees = Some(money("0.1"));
    }
    position
}

fn order(status: OrderStatus, filled: &str, told: i64) -> Order<'static> {
    Order {
        exchange: "BINANCE".into(),
        symbol: "BTC-USDT".into(),
        exchange_order_id: "8389765".into(),
        kind: "limit".into(),
        side: OrderSide::Sell,
        amount: money("1"),
        price: Some(money("30000.000000000000000009")),
        status,
        filled_amount: money(filled),
        remaining_amount: None,
        avg_fill_price: None,
        fee: Some(money("-0.25")),
        created_at: after(0),
        venue_time: after(told),
        receive_time: after(told),
    }
}

/// A log of each kind: states in order, one that comes late, and repetitions.
async fn publish(pipeline: &Pipeline) -> i64 {
    let mut sent = 0;
    let publisher = pipeline.context.publisher().expect("publisher");
    macro_rules! push {
        ($kind:ident, $key:literal, [$($event:expr),+ $(,)?]) => {
            for event in [$($event),+] {
                publisher.event(Kind::$kind, $key, &encode(&event)).await.expect("published");
                sent += 1;
            }
        };
    }
    push!(Flow, "KRX:005930-KRW", [flow("1", 60), flow("3", 120), flow("2", 90), flow("3", 120)]);
    // A prediction is made once: another value under its identity is a conflict.
    push!(Prediction, "KRAKEN:BTC-USD", [prediction("42000.5", "0.87"), prediction("1", "0.5")]);
    let key = "0b5fbc1e-8d5c-4f43-9a53-0123456789ab:CRYPTO";
    for event in [portfolio("1"), portfolio("-1.315185185185185185")] {
        publisher.event(Kind::Portfolio, key, &encode(&event)).await.expect("published");
        sent += 1;
    }
    push!(
        Position,
        "BINANCE:BTC-USDT",
        // Opened, changed, closed, the change told again late; opened anew, closed anew.
        [
            position("1", 10),
            position("2.000000000000000001", 20),
            position("0", 30),
            position("1.5", 25),
            position("5", 40),
            position("0", 50),
        ]
    );
    push!(
        Order,
        "BINANCE:BTC-USDT",
        [
            order(OrderStatus::New, "0", 10),
            order(OrderStatus::PartiallyFilled, "0.4", 20),
            // At the same moment the one that comes later counts.
            order(OrderStatus::Filled, "1", 20),
            order(OrderStatus::Open, "0", 15),
        ]
    );
    publisher.delivered().await.expect("delivered");
    sent
}

fn expected() -> Vec<(&'static str, Vec<Vec<&'static str>>)> {
    vec![
        (
            "select date, symbol, institution_amount, foreign_amount, individual_amount from supply_demand",
            vec![vec![
                "2023-11-14T00:00:00+00:00",
                "005930-KRW",
                "3",
                "-99999999999999999999.999999999999999999",
                "0.000000000000000001",
            ]],
        ),
        (
            "select model_id, prediction_type, predicted_value, confidence, \"timestamp\" from predictions",
            vec![vec!["lstm-7", "price", "42000.5", "0.87", "2023-11-14T00:00:01+00:00"]],
        ),
        (
            "select user_id, asset_type, position_size, entry_price, current_price, pnl from portfolio_status",
            vec![vec![
                USER,
                "CRYPTO",
                "-1.5",
                "30000.123456789012345678",
                "30001",
                "-1.315185185185185185",
            ]],
        ),
        (
            "select side, amount, leverage, margin_type, mark_price, updated_at from current_positions",
            vec![vec!["long", "0", "12.5", "isolated", "30000.2", "2023-11-14T00:00:50+00:00"]],
        ),
        (
            "select side, amount, entry_price, exit_price, realized_pnl, fees, duration from position_history order by closed_at",
            ["00:00:30", "00:00:50"]
                .map(|duration| {
                    let amount = "2.000000000000000001";
                    vec!["long", amount, "30000.1", "31000", "1999.8", "0.1", duration]
                })
                .to_vec(),
        ),
        (
            "select exchange_order_id, type, side, amount, price, status, filled_amount, fee from orders",
            vec![vec![
                "8389765",
                "limit",
                "sell",
                "1",
                "30000.000000000000000009",
                "filled",
                "1",
                "-0.25",
            ]],
        ),
    ]
}

async fn content(pipeline: &Pipeline) -> Vec<Vec<Vec<String>>> {
    let mut all = Vec::new();
    for table in TABLES {
        all.push(look::rows(pipeline, &format!("select * from {table} order by 1, 2, 3, 4")).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_producers_push_is_stored_digit_for_digit_and_fed_again_changes_nothing_invariant_5() {
    let pipeline = Pipeline::new("account").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let sent = publish(&pipeline).await;
    look::all_accounted(&pipeline, sent).await;
    for (sql, rows) in expected() {
        assert_eq!(look::rows(&pipeline, sql).await, rows, "{sql}");
    }
    let before = content(&pipeline).await;
    store.stop().await;
    // The log once more from its beginning, under fences of its own.
    let again = look::renamed(&pipeline, "again");
    let store = pipeline.start_member(&again, StageName::Store);
    let accounted = format!(
        "select coalesce(sum(last_origin - first_origin + 1), 0)::bigint from tapeline_ledger \
        where pipeline = '{}' and topic !~ '(candle|anomaly|gap)$'",
        again.config.pipeline.id
    );
    crate::common::eventually("all of it is read again", || async {
        pipeline.count(&accounted).await == sent
    })
    .await;
    assert_eq!(content(&pipeline).await, before);
    store.stop().await;
    validate.stop().await;
    pipeline.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_breaks_a_rule_of_its_kind_is_quarantined_with_the_reason_invariant_4() {
    let pipeline = Pipeline::new("account_rules").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let mut records = Vec::new();
    let mut push = |kind: Kind, key: &str, payload: Vec<u8>| {
        let mut value = vec![0];
        value.extend_from_slice(&pipeline.context.schema_ids[&kind].to_be_bytes());
        value.extend_from_slice(&payload);
        let plain = Plain {
            partition: partition_for(key.as_bytes(), 4),
            key: Some(key.into()),
            value: Some(value),
            headers: Vec::new(),
        };
        records.push((look::raw_topic(&pipeline, kind), plain));
    };
    fn with<'a, T: Record<'a>>(mut event: T, change: impl FnOnce(&mut T)) -> Vec<u8> {
        change(&mut event);
        encode(&event)
    }
    let spot = "BINANCE:BTC-USDT";
    let user = format!("{USER}:CRYPTO");
    push(Kind::Position, spot, with(position("0", 1), |p| p.closed_amount = None));
    push(Kind::Position, spot, with(position("1", 1), |p| p.exit_price = Some(Money::ONE)));
    push(Kind::Position, spot, with(position("1", 1), |p| p.amount = money("-1")));
    push(Kind::Position, spot, with(position("0", 1), |p| p.opened_at = after(2)));
    push(
        Kind::Order,
        spot,
        with(order(OrderStatus::Open, "0", 1), |o| o.filled_amount = money("2")),
    );
    push(Kind::Order, "OTHER:BTC-USDT", encode(&order(OrderStatus::Open, "0", 1)));
    push(Kind::Prediction, "KRAKEN:BTC-USD", encode(&prediction("1", "1.01")));
    push(Kind::Portfolio, &user, with(portfolio("1"), |p| p.user_id = "me".into()));
    push(Kind::Flow, "KRX:005930-KRW", with(flow("1", 1), |f| f.date = Micros(1)));
    push(Kind::Order, spot, encode(&order(OrderStatus::Open, "0", 1)));
    look::push(&pipeline, &records).await;
    let bad = records.len() as i64 - 1;
    let audit = look::all_accounted(&pipeline, bad + 1).await;
    assert_eq!((audit.outcomes["quarantined"], audit.outcomes["stored"]), (bad as u64 as _, 1));
    let mut reasons: Vec<String> = look::read_kind(&pipeline, Kind::Quarantine)
        .iter()
        .map(|seen| String::from_utf8_lossy(seen.value.as_deref().unwrap_or_default()).into_owned())
        .collect();
    for named in [
        "closed_amount is missing",
        "exit_price is 1, expected none",
        "amount is -1",
        "opened_at is",
        "filled_amount is 2",
        "expected BINANCE:BTC-USDT",
        "confidence is 1.01",
        "user_id is \"me\"",
        "date is 1",
    ] {
        let found = reasons.iter().position(|text| text.contains(named));
        reasons.remove(found.unwrap_or_else(|| panic!("{named} is not among {reasons:?}")));
    }
    assert!(reasons.is_empty(), "{reasons:?}");
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}
