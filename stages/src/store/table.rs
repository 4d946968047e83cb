//! The tables the store writes, and the statements for each.

/// A table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Table {
    /// `market_data_trades`
    Trades,
    /// `market_data_ticker`
    Ticker,
    /// `market_data_orderbook`
    Orderbook,
    /// `market_data_anomalies`
    Anomalies,
    /// `market_data_ohlcv`
    Ohlcv,
    /// `market_data_gaps`
    Gaps,
}

/// How a table takes a row whose key is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// The row that is there stays. Rows are told apart by their origin.
    First,
    /// A row that goes further replaces it.
    Higher,
}

pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Columns in the order of the tuples.
    pub(crate) columns: &'static [&'static str],
    /// Columns of the unique key.
    pub(crate) key: &'static [&'static str],
    /// For [`Rule::First`]: columns that name the record a row is from.
    pub(crate) identity: &'static [&'static str],
    /// Columns that make an event another one where they differ; receive times and origins do
    /// not, an event that is fetched again has others.
    pub(crate) content: &'static [&'static str],
    /// The hypertable's time.
    pub(crate) time: &'static str,
    pub(crate) rule: Rule,
    /// For [`Rule::Higher`]: how far a row goes, to be compared; `{}` stands for the row.
    pub(crate) height: &'static str,
}

impl Table {
    /// Every table, in the order of writing.
    pub const ALL: [Table; 6] = [
        Table::Trades,
        Table::Ticker,
        Table::Orderbook,
        Table::Anomalies,
        Table::Ohlcv,
        Table::Gaps,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    pub(crate) fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }
}

static SPECS: [Spec; 6] = [
    Spec {
        name: "market_data_trades",
        columns: &[
            "time",
            "exchange",
            "symbol",
            "trade_id",
            "price",
            "amount",
            "side",
            "type",
            "taker_or_maker",
            "sequence",
            "receive_time",
            "origin_partition",
            "origin",
        ],
        key: &["exchange", "symbol", "time", "trade_id"],
        identity: &["origin_partition", "origin"],
        content: &["price", "amount", "side"],
        time: "time",
        rule: Rule::First,
        height: "",
    },
    Spec {
        name: "market_data_ticker",
        columns: &[
            "time",
            "exchange",
            "symbol",
            "event_id",
            "last_price",
            "bid_price",
            "ask_price",
            "bid_volume",
            "ask_volume",
            "volume_24h",
            "quote_volume_24h",
            "price_change_24h",
            "price_change_percent_24h",
            "receive_time",
            "origin_partition",
            "origin",
        ],
        key: &["exchange", "symbol", "time", "event_id"],
        identity: &["origin_partition", "origin"],
        content: &["last_price", "bid_price", "ask_price", "bid_volume", "ask_volume"],
        time: "time",
        rule: Rule::First,
        height: "",
    },
    Spec {
        name: "market_data_orderbook",
        columns: &[
            "time",
            "exchange",
            "symbol",
            "event_id",
            "bids",
            "asks",
            "timestamp_ms",
            "sequence",
            "receive_time",
            "origin_partition",
            "origin",
        ],
        key: &["exchange", "symbol", "time", "event_id"],
        identity: &["origin_partition", "origin"],
        content: &["bids", "asks"],
        time: "time",
        rule: Rule::First,
        height: "",
    },
    Spec {
        name: "market_data_anomalies",
        columns: &[
            "time",
            "origin_topic",
            "origin_partition",
            "origin",
            "exchange",
            "symbol",
            "kind",
            "flags",
            "detail",
            "receive_time",
        ],
        key: &["origin_topic", "origin_partition", "origin", "time"],
        identity: &["origin_topic", "origin_partition", "origin"],
        content: &["flags"],
        time: "time",
        rule: Rule::First,
        height: "",
    },
    Spec {
        name: "market_data_ohlcv",
        columns: &[
            "time",
            "exchange",
            "symbol",
            "timeframe",
            "source",
            "open",
            "high",
            "low",
            "close",
            "volume",
            "quote_volume",
            "trades_count",
            "final",
            "revision",
            "close_time",
            "receive_time",
        ],
        key: &["exchange", "symbol", "timeframe", "source", "time"],
        identity: &[],
        content: &["open", "high", "low", "close", "volume", "quote_volume", "trades_count"],
        time: "time",
        rule: Rule::Higher,
        height: "({}.revision, {}.final)",
    },
    Spec {
        name: "market_data_gaps",
        columns: &[
            "exchange",
            "symbol",
            "channel",
            "from_time",
            "to_time",
            "state",
            "cause",
            "filled_by",
            "origin_topic",
            "origin_partition",
            "origin",
        ],
        key: &["exchange", "symbol", "channel", "from_time"],
        identity: &[],
        content: &[],
        time: "from_time",
        rule: Rule::Higher,
        height: "array_position(array['opened', 'ended', 'filled'], {}.state)",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_content_column_is_in_its_table() {
        for table in Table::ALL {
            let spec = table.spec();
            for column in spec.key.iter().chain(spec.content) {
                assert!(spec.columns.contains(column), "{} {column}", spec.name);
            }
            assert!(spec.key.contains(&spec.time));
        }
    }
}
