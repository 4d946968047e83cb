//! Tables of what producers push: how each takes a row, and its rows.
//!
//! Where the newest state counts, a row goes as far as its (update time, origin): an older one,
//! or the same one again, changes nothing (invariant 5).

use tapeline_schemas::{Flow, Money, Order, Portfolio, Position, Prediction};

use super::rows::{Origin, Written, begin, group, moment, put_origin};
use super::table::{Rule, Spec, Table};
use crate::flow::Reject;

pub(super) const FLOWS: Spec = Spec {
    name: "supply_demand",
    columns: &[
        "date",
        "exchange",
        "symbol",
        "institution_amount",
        "foreign_amount",
        "individual_amount",
        "updated_at",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["exchange", "symbol", "date"],
    identity: &[],
    content: &[],
    time: "date",
    rule: Rule::Higher,
    height: "({}.updated_at, {}.origin)",
};

pub(super) const PREDICTIONS: Spec = Spec {
    name: "predictions",
    columns: &[
        "timestamp",
        "exchange",
        "symbol",
        "model_id",
        "prediction_type",
        "predicted_value",
        "confidence",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["model_id", "exchange", "symbol", "prediction_type", "timestamp"],
    identity: &["origin_partition", "origin"],
    content: &["predicted_value", "confidence"],
    time: "timestamp",
    rule: Rule::First,
    height: "",
};

pub(super) const PORTFOLIOS: Spec = Spec {
    name: "portfolio_status",
    columns: &[
        "timestamp",
        "user_id",
        "asset_type",
        "position_size",
        "entry_price",
        "current_price",
        "pnl",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["user_id", "asset_type", "timestamp"],
    identity: &[],
    content: &[],
    time: "timestamp",
    rule: Rule::Higher,
    height: "{}.origin",
};

pub(super) const POSITIONS: Spec = Spec {
    name: "current_positions",
    columns: &[
        "exchange",
        "symbol",
        "side",
        "amount",
        "entry_price",
        "mark_price",
        "unrealized_pnl",
        "realized_pnl",
        "leverage",
        "margin_type",
        "liquidation_price",
        "created_at",
        "updated_at",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["exchange", "symbol", "side"],
    identity: &[],
    content: &[],
    time: "updated_at",
    rule: Rule::Higher,
    height: "({}.updated_at, {}.origin)",
};

pub(super) const POSITION_HISTORY: Spec = Spec {
    name: "position_history",
    columns: &[
        "exchange",
        "symbol",
        "side",
        "amount",
        "entry_price",
        "exit_price",
        "realized_pnl",
        "fees",
        "created_at",
        "closed_at",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["exchange", "symbol", "side", "closed_at"],
    identity: &[],
    content: &[],
    time: "closed_at",
    rule: Rule::Higher,
    height: "{}.origin",
};

pub(super) const ORDERS: Spec = Spec {
    name: "orders",
    columns: &[
        "exchange",
        "exchange_order_id",
        "symbol",
        "type",
        "side",
        "amount",
        "price",
        "status",
        "filled_amount",
        "remaining_amount",
        "avg_fill_price",
        "fee",
        "created_at",
        "updated_at",
        "receive_time",
        "origin_partition",
        "origin",
    ],
    key: &["exchange", "exchange_order_id"],
    identity: &[],
    content: &[],
    time: "updated_at",
    rule: Rule::Higher,
    height: "({}.updated_at, {}.origin)",
};

/// The bytes of a UUID in its canonical form: small letters, groups of 8, 4, 4, 4 and 12 digits.
pub(crate) fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut digits = [0_u8; 32];
    let mut count = 0;
    if text.len() != 36 {
        return None;
    }
    for (index, byte) in text.bytes().enumerate() {
        let is_dash = matches!(index, 8 | 13 | 18 | 23);
        digits[count] = match byte {
            b'-' if is_dash => continue,
            b'0'..=b'9' if !is_dash => byte - b'0',
            b'a'..=b'f' if !is_dash => byte - b'a' + 10,
            _ => return None,
        };
        count += 1;
    }
    Some(std::array::from_fn(|index| digits[2 * index] << 4 | digits[2 * index + 1]))
}

pub(super) fn flow(event: &Flow<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (date, updated_at) = (moment(event.date)?, moment(event.venue_time)?);
    let receive_time = moment(event.receive_time)?;
    let mut tuple = begin(Table::Flows, out);
    tuple.bigint(date);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    for value in [event.institution_amount, event.foreign_amount, event.individual_amount] {
        tuple.money(value);
    }
    tuple.bigint(updated_at);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.date, group(&event.exchange, &event.symbol)))
}

pub(super) fn prediction(event: &Prediction<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let mut tuple = begin(Table::Predictions, out);
    tuple.bigint(time);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(&event.model_id);
    tuple.text(&event.prediction_type);
    tuple.money(event.predicted_value);
    tuple.money(event.confidence);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn portfolio(event: &Portfolio<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (time, receive_time) = (moment(event.venue_time)?, moment(event.receive_time)?);
    let user = uuid(&event.user_id)
        .ok_or_else(|| Reject::new("range", format!("user_id {:?} is no uuid", event.user_id)))?;
    let mut tuple = begin(Table::Portfolios, out);
    tuple.bigint(time);
    tuple.uuid(user);
    tuple.text(&event.asset_type);
    for value in [event.position_size, event.entry_price, event.current_price, event.pnl] {
        tuple.money(value);
    }
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.user_id, &event.asset_type)))
}

pub(super) fn position(event: &Position<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (created_at, updated_at) = (moment(event.opened_at)?, moment(event.venue_time)?);
    let receive_time = moment(event.receive_time)?;
    let mut tuple = begin(Table::Positions, out);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(event.side.name());
    tuple.money(event.amount);
    tuple.money(event.entry_price);
    for value in [event.mark_price, event.unrealized_pnl, event.realized_pnl, event.leverage] {
        tuple.money_or_null(value);
    }
    tuple.text_or_null(event.margin_type.as_deref());
    tuple.money_or_null(event.liquidation_price);
    tuple.bigint(created_at);
    tuple.bigint(updated_at);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

/// The row that a closed position leaves behind.
pub(super) fn closed(event: &Position<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (created_at, closed_at) = (moment(event.opened_at)?, moment(event.venue_time)?);
    let receive_time = moment(event.receive_time)?;
    let mut tuple = begin(Table::PositionHistory, out);
    tuple.text(&event.exchange);
    tuple.text(&event.symbol);
    tuple.text(event.side.name());
    tuple.money(event.closed_amount.unwrap_or(Money::ZERO));
    tuple.money(event.entry_price);
    for value in [event.exit_price, event.realized_pnl, event.fees] {
        tuple.money_or_null(value);
    }
    tuple.bigint(created_at);
    tuple.bigint(closed_at);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

pub(super) fn order(event: &Order<'_>, origin: Origin, out: &mut Vec<u8>) -> Written {
    let (created_at, updated_at) = (moment(event.created_at)?, moment(event.venue_time)?);
    let receive_time = moment(event.receive_time)?;
    let mut tuple = begin(Table::Orders, out);
    tuple.text(&event.exchange);
    tuple.text(&event.exchange_order_id);
    tuple.text(&event.symbol);
    tuple.text(&event.kind);
    tuple.text(event.side.name());
    tuple.money(event.amount);
    tuple.money_or_null(event.price);
    tuple.text(event.status.name());
    tuple.money(event.filled_amount);
    for value in [event.remaining_amount, event.avg_fill_price, event.fee] {
        tuple.money_or_null(value);
    }
    tuple.bigint(created_at);
    tuple.bigint(updated_at);
    tuple.bigint(receive_time);
    put_origin(&mut tuple, origin);
    Ok((event.venue_time, group(&event.exchange, &event.symbol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_is_taken_in_its_canonical_form_only() {
        let bytes = uuid("00112233-4455-6677-8899-aabbccddeeff").expect("canonical");
        assert_eq!(bytes, std::array::from_fn(|index| index as u8 * 0x11));
        for other in [
            "",
            "00112233445566778899aabbccddeeff",
            "00112233-4455-6677-8899-AABBCCDDEEFF",
            "00112233-4455-6677-8899-aabbccddeef",
            "0011223-34455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeefg",
            "-0112233-4455-6677-8899-aabbccddeeff",
        ] {
            assert_eq!(uuid(other), None, "{other}");
        }
    }
}
