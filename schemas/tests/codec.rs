//! The hand-written codec and `apache-avro` agree on every event, both ways.

use std::borrow::Cow;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use ethnum::I256;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use tapeline_schemas::*;

fn write(schema: &Schema, value: Value) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build().expect("schema");
    writer.write_value_to_vec(value).expect("encodes")
}

fn read(schema: &Schema, mut bytes: &[u8]) -> Value {
    let reader = GenericDatumReader::builder(schema).build().expect("schema");
    reader.read_value(&mut bytes).expect("decodes")
}

fn text() -> impl Strategy<Value = Cow<'static, str>> {
    "\\PC{0,24}".prop_map(Cow::Owned)
}

fn bytes() -> impl Strategy<Value = Cow<'static, [u8]>> {
    vec(any::<u8>(), 0..40).prop_map(Cow::Owned)
}

fn money() -> impl Strategy<Value = Money> {
    let limit = 10_i128.pow(38) - 1;
    prop_oneof![
        (-limit..=limit),
        (-1000_i128..1000),
        any::<i64>().prop_map(i128::from),
        (0_u32..37).prop_map(|power| -(1_i128 << (power * 3))),
    ]
    .prop_map(|mantissa| Money::from_mantissa(mantissa).expect("in range"))
}

fn wide() -> impl Strategy<Value = Wide> {
    (any::<i128>(), any::<i64>())
        .prop_map(|(a, b)| Wide::from_mantissa(I256::new(a) * I256::from(b)).expect("57 digits"))
}

fn time() -> impl Strategy<Value = Micros> {
    any::<i64>().prop_map(Micros)
}

fn levels() -> impl Strategy<Value = Vec<Level>> {
    vec((money(), money()).prop_map(|(price, amount)| Level { price, amount }), 0..30)
}

prop_compose! {
    fn trade()(
        exchange in text(), symbol in text(), trade_id in text(), price in money(), amount in money(),
        side in prop::sample::select(Side::ALL), kind in option::of(text()),
        taker_or_maker in option::of(text()), sequence in option::of(any::<i64>()),
        venue_time in time(), receive_time in time(),
    ) -> Trade<'static> {
        Trade { exchange, symbol, trade_id, price, amount, side, kind, taker_or_maker, sequence, venue_time, receive_time }
    }
}

prop_compose! {
    fn ticker()(
        exchange in text(), symbol in text(), event_id in option::of(text()),
        figures in vec(option::of(money()), 9), venue_time in time(), receive_time in time(),
    ) -> Ticker<'static> {
        Ticker {
            exchange, symbol, event_id,
            last: figures[0], bid: figures[1], bid_volume: figures[2], ask: figures[3], ask_volume: figures[4],
            volume_24h: figures[5], quote_volume_24h: figures[6], price_change_24h: figures[7],
            price_change_percent_24h: figures[8], venue_time, receive_time,
        }
    }
}

prop_compose! {
    fn book()(
        exchange in text(), symbol in text(), action in prop::sample::select(BookAction::ALL),
        event_id in option::of(text()), bids in levels(), asks in levels(),
        numbers in vec(option::of(any::<i64>()), 3), venue_time in time(), receive_time in time(),
    ) -> Book<'static> {
        Book {
            exchange, symbol, action, event_id, bids, asks,
            first_sequence: numbers[0], sequence: numbers[1], checksum: numbers[2], venue_time, receive_time,
        }
    }
}

prop_compose! {
    fn candle()(
        names in vec(text(), 3), source in prop::sample::select(CandleSource::ALL), times in vec(time(), 3),
        prices in vec(money(), 5), quote_volume in wide(), trades_count in any::<i64>(), is_final in any::<bool>(),
        revision in any::<i32>(),
    ) -> Candle<'static> {
        Candle {
            exchange: names[0].clone(), symbol: names[1].clone(), timeframe: names[2].clone(), source,
            open_time: times[0], close_time: times[1], open: prices[0], high: prices[1], low: prices[2],
            close: prices[3], volume: prices[4], quote_volume, trades_count, is_final, revision, receive_time: times[2],
        }
    }
}

prop_compose! {
    fn anomaly()(
        names in vec(text(), 5), origin_partition in any::<i32>(), origin_offset in any::<i64>(),
        flags in vec(text(), 0..4), venue_time in time(), receive_time in time(),
    ) -> Anomaly<'static> {
        Anomaly {
            origin_topic: names[0].clone(), origin_partition, origin_offset, exchange: names[1].clone(),
            symbol: names[2].clone(), kind: names[3].clone(), flags, detail: names[4].clone(), venue_time, receive_time,
        }
    }
}

prop_compose! {
    fn gap()(
        names in vec(text(), 5), state in prop::sample::select(GapState::ALL), from_time in time(),
        to_time in option::of(time()), filled_by in option::of(text()),
        origin_partition in any::<i32>(), origin_offset in any::<i64>(),
    ) -> Gap<'static> {
        Gap {
            exchange: names[0].clone(), symbol: names[1].clone(), channel: names[2].clone(), state, from_time, to_time,
            cause: names[3].clone(), filled_by, origin_topic: names[4].clone(), origin_partition, origin_offset,
        }
    }
}

prop_compose! {
    fn quarantine()(
        names in vec(text(), 4), origin_partition in any::<i32>(), origin_offset in any::<i64>(),
        origin_time in time(), key in option::of(bytes()), value in option::of(bytes()),
        headers in vec((text(), option::of(bytes())).prop_map(|(name, value)| OriginalHeader { name, value }), 0..4),
    ) -> Quarantine<'static> {
        Quarantine {
            origin_topic: names[0].clone(), origin_partition, origin_offset, origin_time, stage: names[1].clone(),
            reason: names[2].clone(), detail: names[3].clone(), key, value, headers,
        }
    }
}

prop_compose! {
    fn flow()(names in vec(text(), 2), amounts in vec(money(), 3), times in vec(time(), 3)) -> Flow<'static> {
        Flow {
            exchange: names[0].clone(), symbol: names[1].clone(), date: times[0], institution_amount: amounts[0],
            foreign_amount: amounts[1], individual_amount: amounts[2], venue_time: times[1], receive_time: times[2],
        }
    }
}

prop_compose! {
    fn prediction()(names in vec(text(), 4), values in vec(money(), 2), times in vec(time(), 2)) -> Prediction<'static> {
        Prediction {
            exchange: names[0].clone(), symbol: names[1].clone(), model_id: names[2].clone(),
            prediction_type: names[3].clone(), predicted_value: values[0], confidence: values[1],
            venue_time: times[0], receive_time: times[1],
        }
    }
}

prop_compose! {
    fn portfolio()(names in vec(text(), 2), values in vec(money(), 4), times in vec(time(), 2)) -> Portfolio<'static> {
        Portfolio {
            user_id: names[0].clone(), asset_type: names[1].clone(), position_size: values[0], entry_price: values[1],
            current_price: values[2], pnl: values[3], venue_time: times[0], receive_time: times[1],
        }
    }
}

prop_compose! {
    fn position()(
        names in vec(text(), 2), side in prop::sample::select(PositionSide::ALL), values in vec(money(), 2),
        figures in vec(option::of(money()), 8), margin_type in option::of(text()), times in vec(time(), 3),
    ) -> Position<'static> {
        Position {
            exchange: names[0].clone(), symbol: names[1].clone(), side, amount: values[0], entry_price: values[1],
            mark_price: figures[0], unrealized_pnl: figures[1], realized_pnl: figures[2], leverage: figures[3],
            margin_type, liquidation_price: figures[4], opened_at: times[0], closed_amount: figures[5],
            exit_price: figures[6], fees: figures[7], venue_time: times[1], receive_time: times[2],
        }
    }
}

prop_compose! {
    fn order()(
        names in vec(text(), 4), side in prop::sample::select(OrderSide::ALL),
        status in prop::sample::select(OrderStatus::ALL), values in vec(money(), 2),
        figures in vec(option::of(money()), 4), times in vec(time(), 3),
    ) -> Order<'static> {
        Order {
            exchange: names[0].clone(), symbol: names[1].clone(), exchange_order_id: names[2].clone(),
            kind: names[3].clone(), side, amount: values[0], price: figures[0], status, filled_amount: values[1],
            remaining_amount: figures[1], avg_fill_price: figures[2], fee: figures[3], created_at: times[0],
            venue_time: times[1], receive_time: times[2],
        }
    }
}

prop_compose! {
    fn option_data()(
        names in vec(text(), 3), event_id in option::of(text()), strike in money(), times in vec(time(), 3),
        option_type in prop::sample::select(OptionType::ALL), figures in vec(option::of(money()), 13),
    ) -> OptionData<'static> {
        OptionData {
            exchange: names[0].clone(), symbol: names[1].clone(), event_id, underlying: names[2].clone(), strike,
            expiry: times[0], option_type, mark_price: figures[0], underlying_price: figures[1],
            index_price: figures[2], iv: figures[3], bid_iv: figures[4], ask_iv: figures[5], delta: figures[6],
            gamma: figures[7], theta: figures[8], vega: figures[9], rho: figures[10], interest_rate: figures[11],
            open_interest: figures[12], venue_time: times[1], receive_time: times[2],
        }
    }
}

macro_rules! agrees {
    ($name:ident, $strategy:expr, $type:ident) => {
        proptest! {
            #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
            #[test]
            fn $name(event in $strategy, cut in any::<prop::sample::Index>(), noise in any::<u8>()) {
                let schema = Schema::parse_str(<$type as Record>::SCHEMA).expect("schema");
                let ours = encode(&event);
                let theirs = write(&schema, event.to_value());
                prop_assert_eq!(&ours, &theirs);
                prop_assert_eq!(&<$type as Record>::decode(&theirs).expect("decodes"), &event);
                let value = read(&schema, &ours);
                prop_assert_eq!(&$type::from_value(value).expect("converts"), &event);
                // Cut short it is refused; with a flipped byte it is refused or another event, never a panic.
                let end = cut.index(ours.len());
                prop_assert!(<$type as Record>::decode(&ours[..end]).is_err());
                let mut flipped = ours;
                flipped[end] ^= noise | 1;
                let _ = <$type as Record>::decode(&flipped);
            }
        }
    };
}

agrees!(trades_are_encoded_as_apache_avro_does, trade(), Trade);
agrees!(tickers_are_encoded_as_apache_avro_does, ticker(), Ticker);
agrees!(books_are_encoded_as_apache_avro_does, book(), Book);
agrees!(candles_are_encoded_as_apache_avro_does, candle(), Candle);
agrees!(anomalies_are_encoded_as_apache_avro_does, anomaly(), Anomaly);
agrees!(gaps_are_encoded_as_apache_avro_does, gap(), Gap);
agrees!(options_are_encoded_as_apache_avro_does, option_data(), OptionData);
agrees!(quarantined_records_are_encoded_as_apache_avro_does, quarantine(), Quarantine);
agrees!(flows_are_encoded_as_apache_avro_does, flow(), Flow);
agrees!(predictions_are_encoded_as_apache_avro_does, prediction(), Prediction);
agrees!(portfolios_are_encoded_as_apache_avro_does, portfolio(), Portfolio);
agrees!(positions_are_encoded_as_apache_avro_does, position(), Position);
agrees!(orders_are_encoded_as_apache_avro_does, order(), Order);

proptest! {
    #[test]
    fn any_bytes_are_an_event_or_an_error_without_panic(input in vec(any::<u8>(), 0..200)) {
        let _ = Trade::decode(&input);
        let _ = Ticker::decode(&input);
        let _ = Book::decode(&input);
        let _ = Quarantine::decode(&input);
        let _ = Position::decode(&input);
        let _ = Order::decode(&input);
    }
}

#[test]
fn absurd_lengths_are_refused_before_they_cost_memory() {
    let mut length = vec![0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    length.extend_from_slice(&[0; 8]);
    assert_eq!(Trade::decode(&length), Err(CodecError::Truncated));
    let book = Book {
        exchange: "A".into(),
        symbol: "B-C".into(),
        action: BookAction::Top,
        event_id: None,
        bids: Vec::new(),
        asks: Vec::new(),
        first_sequence: None,
        sequence: None,
        checksum: None,
        venue_time: Micros(0),
        receive_time: Micros(0),
    };
    let mut bytes = encode(&book);
    let bids_at = bytes.len() - 7; // two empty arrays, three nulls, two zero times
    bytes.splice(bids_at..=bids_at, length[..10].iter().copied());
    assert_eq!(Book::decode(&bytes), Err(CodecError::Truncated));
}

#[test]
fn another_writer_schema_is_resolved_through_apache_avro() {
    let older = r#"{"type":"record","name":"Trade","namespace":"tapeline","fields":[
        {"name":"symbol","type":"string"},{"name":"exchange","type":"string"},
        {"name":"receive_time","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"venue_time","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"trade_id","type":"string"},
        {"name":"amount","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":18}},
        {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":38,"scale":18}},
        {"name":"side","type":{"type":"enum","name":"Side","symbols":["sell","buy","unknown"]}}]}"#;
    let writer = Schema::parse_str(older).expect("schema");
    let price: Money = "12.5".parse().expect("money");
    let value = Value::Record(vec![
        ("symbol".into(), Field::to_value(&Cow::Borrowed("B-C"))),
        ("exchange".into(), Field::to_value(&Cow::Borrowed("A"))),
        ("receive_time".into(), Micros(2).to_value()),
        ("venue_time".into(), Micros(1).to_value()),
        ("trade_id".into(), Field::to_value(&Cow::Borrowed("7"))),
        ("amount".into(), Money::ONE.to_value()),
        ("price".into(), price.to_value()),
        ("side".into(), Value::Enum(0, "sell".into())),
    ]);
    let written = write(&writer, value);
    let resolver = Resolver::new::<Trade>(older).expect("compatible");
    let trade: Trade = resolver.read(&written).expect("resolves");
    assert_eq!((trade.price, trade.side, trade.kind), (price, Side::Sell, None));
    assert!(resolver.read::<Trade>(&written[..written.len() - 1]).is_err());
    let other_scale = older.replace("\"scale\":18", "\"scale\":8");
    assert!(Resolver::new::<Trade>(&other_scale).is_err(), "a price must not move by ten digits");
}
