//! The table of kinds: everything the pipeline knows about a kind of event, once.

use crate::codec::Record;
use crate::event::{Anomaly, Book, Candle, Gap, OptionData, Quarantine, Ticker, Trade};
use crate::pushed::{Flow, Order, Portfolio, Position, Prediction};

/// A kind of event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Trades.
    Trade,
    /// Tickers.
    Ticker,
    /// Order books.
    Book,
    /// Candles.
    Candle,
    /// Anomalies.
    Anomaly,
    /// Holes in feeds.
    Gap,
    /// Records that could not be taken.
    Quarantine,
    /// Net buying by kind of investor.
    Flow,
    /// Predictions of models.
    Prediction,
    /// Holdings of users.
    Portfolio,
    /// Positions of the account.
    Position,
    /// Orders of the account.
    Order,
    /// Figures of options: volatilities, greeks, open interest.
    Option,
    /// Candles that a venue made. Ours have a kind of their own, without a raw topic, so the two never mix.
    VenueCandle,
}

/// How a topic forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// After its retention time.
    Delete,
    /// All but the newest record of each key.
    Compact,
}

/// One row of the table.
#[derive(Debug)]
pub struct KindSpec {
    /// The kind.
    pub kind: Kind,
    /// Its name, in topics, metrics and tables.
    pub name: &'static str,
    /// Its Avro schema.
    pub schema: &'static str,
    /// Whether producers push it into a raw topic, to be checked. Exactly one raw topic feeds such a kind.
    pub raw: bool,
    /// Partitions of its topics where configuration says nothing else; fixed at creation.
    pub partitions: i32,
    /// Days its records are kept in Kafka.
    pub retention_days: u32,
    /// How its checked topic forgets.
    pub cleanup: Cleanup,
    /// Largest raw record in bytes.
    pub max_message_bytes: usize,
    /// Database table, where `store` takes it.
    pub table: Option<&'static str>,
    /// Redis key and time to live in seconds, where `cache` takes it.
    pub redis: Option<(&'static str, u32)>,
}

const MIB: usize = 1024 * 1024;
/// What checked and quarantine topics allow above the raw record: headers and the wrapping.
const WRAPPING_BYTES: usize = 64 * 1024;

const fn row(kind: Kind, name: &'static str, schema: &'static str) -> KindSpec {
    KindSpec {
        kind,
        name,
        schema,
        raw: false,
        partitions: 12,
        retention_days: 7,
        cleanup: Cleanup::Delete,
        max_message_bytes: MIB,
        table: None,
        redis: None,
    }
}

/// Every kind.
pub static ALL_KINDS: [KindSpec; 14] = [
    KindSpec {
        raw: true,
        table: Some("market_data_trades"),
        ..row(Kind::Trade, "trade", Trade::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("market_data_ticker"),
        redis: Some(("market_data:ticker", 60)),
        ..row(Kind::Ticker, "ticker", Ticker::SCHEMA)
    },
    KindSpec {
        raw: true,
        max_message_bytes: 4 * MIB,
        table: Some("market_data_orderbook"),
        redis: Some(("market_data:orderbook", 60)),
        ..row(Kind::Book, "book", Book::SCHEMA)
    },
    KindSpec {
        table: Some("market_data_ohlcv"),
        redis: Some(("market_data:candle", 3_600)),
        ..row(Kind::Candle, "candle", Candle::SCHEMA)
    },
    KindSpec {
        table: Some("market_data_anomalies"),
        ..row(Kind::Anomaly, "anomaly", Anomaly::SCHEMA)
    },
    KindSpec { table: Some("market_data_gaps"), ..row(Kind::Gap, "gap", Gap::SCHEMA) },
    KindSpec {
        retention_days: 30,
        max_message_bytes: 4 * MIB,
        ..row(Kind::Quarantine, "quarantine", Quarantine::SCHEMA)
    },
    KindSpec { raw: true, table: Some("supply_demand"), ..row(Kind::Flow, "flow", Flow::SCHEMA) },
    KindSpec {
        raw: true,
        table: Some("predictions"),
        ..row(Kind::Prediction, "prediction", Prediction::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("portfolio_status"),
        ..row(Kind::Portfolio, "portfolio", Portfolio::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("current_positions"),
        redis: Some(("positions", 5)),
        ..row(Kind::Position, "position", Position::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("orders"),
        redis: Some(("orders:status", 10)),
        ..row(Kind::Order, "order", Order::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("option_data"),
        ..row(Kind::Option, "option", OptionData::SCHEMA)
    },
    KindSpec {
        raw: true,
        table: Some("market_data_ohlcv"),
        ..row(Kind::VenueCandle, "venue_candle", Candle::SCHEMA)
    },
];

impl Kind {
    /// The kind's row.
    pub fn spec(self) -> &'static KindSpec {
        &ALL_KINDS[self as usize]
    }

    /// The kind's name.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// The kind with this name.
    pub fn from_name(name: &str) -> Option<Kind> {
        ALL_KINDS.iter().find(|spec| spec.name == name).map(|spec| spec.kind)
    }

    /// Kinds that producers push into raw topics.
    pub fn raw() -> impl Iterator<Item = Kind> {
        ALL_KINDS.iter().filter(|spec| spec.raw).map(|spec| spec.kind)
    }
}

impl KindSpec {
    /// Name of the raw topic behind `prefix` (`md.` gives `md.trade.raw`).
    pub fn raw_topic(&self, prefix: &str) -> String {
        format!("{prefix}{}.raw", self.name)
    }

    /// Name of the checked topic, or of the only one.
    pub fn topic(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name)
    }

    /// Largest record of the checked topic in bytes.
    pub const fn checked_max_message_bytes(&self) -> usize {
        self.max_message_bytes + WRAPPING_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_one_row_a_kind_in_the_order_of_the_enum() {
        for (index, spec) in ALL_KINDS.iter().enumerate() {
            assert_eq!(spec.kind as usize, index);
            assert_eq!(Kind::from_name(spec.name), Some(spec.kind));
            apache_avro::Schema::parse_str(spec.schema).expect(spec.name);
        }
    }
}
