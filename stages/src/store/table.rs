//! The tables the store writes, and the statements for each.

use tapeline_schemas::{ALL_KINDS, Kind, KindSpec};

use super::pushed;

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
    /// `supply_demand`
    Flows,
    /// `predictions`
    Predictions,
    /// `portfolio_status`
    Portfolios,
    /// `current_positions`
    Positions,
    /// `position_history`: a second row of the record that closes a position
    PositionHistory,
    /// `orders`
    Orders,
    /// `option_data`
    OptionData,
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
    /// Time of the event; part of the key for [`Rule::First`], whose hypertables are searched by it.
    pub(crate) time: &'static str,
    pub(crate) rule: Rule,
    /// For [`Rule::Higher`]: how far a row goes, to be compared; `{}` stands for the row.
    pub(crate) height: &'static str,
}

impl Table {
    /// Every table, in the order of writing.
    pub const ALL: [Table; 13] = [
        Table::Trades,
        Table::Ticker,
        Table::Orderbook,
        Table::Anomalies,
        Table::Ohlcv,
        Table::Gaps,
        Table::Flows,
        Table::Predictions,
        Table::Portfolios,
        Table::Positions,
        Table::PositionHistory,
        Table::Orders,
        Table::OptionData,
    ];

    /// Its name in the database.
    pub fn name(self) -> &'static str {
        self.spec().name
    }

    /// Its columns.
    pub fn columns(self) -> &'static [&'static str] {
        self.spec().columns
    }

    /// Columns of its unique key.
    pub fn key(self) -> &'static [&'static str] {
        self.spec().key
    }

    /// Columns that make an event another one where they differ.
    pub fn content(self) -> &'static [&'static str] {
        self.spec().content
    }

    /// Its column of the event's time.
    pub fn time(self) -> &'static str {
        self.spec().time
    }

    /// Whether a row may replace another of its key.
    pub fn replaces(self) -> bool {
        self.spec().rule == Rule::Higher
    }

    /// Whether a row keeps its time when it is replaced.
    pub fn keeps_time(self) -> bool {
        self.key().contains(&self.time())
    }

    /// The table that takes a kind.
    pub fn of(kind: Kind) -> Option<Table> {
        let name = kind.spec().table?;
        Table::ALL.into_iter().find(|table| table.name() == name)
    }

    /// Kinds that it takes.
    pub fn kinds(self) -> impl Iterator<Item = Kind> {
        let of = move |spec: &&KindSpec| spec.table == Some(self.name());
        ALL_KINDS.iter().filter(of).map(|spec| spec.kind)
    }

    /// Whether its rows come beside another row of the same record, which alone is counted.
    pub(crate) fn is_beside(self) -> bool {
        self == Table::PositionHistory
    }

    pub(crate) fn spec(self) -> &'static Spec {
        &SPECS[self as usize]
    }
}

static SPECS: [Spec; 13] = [
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
            "origin_partition",
            "origin",
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
        // Of two ends of the same hole the later one.
        height: "(array_position(array['opened', 'ended', 'filled'], {}.state), {}.to_time)",
    },
    pushed::FLOWS,
    pushed::PREDICTIONS,
    pushed::PORTFOLIOS,
    pushed::POSITIONS,
    pushed::POSITION_HISTORY,
    pushed::ORDERS,
    Spec {
        name: "option_data",
        columns: &[
            "time",
            "exchange",
            "symbol",
            "event_id",
            "underlying",
            "strike_price",
            "expiry_date",
            "option_type",
            "iv",
            "delta",
            "gamma",
            "theta",
            "vega",
            "rho",
            "bid_iv",
            "ask_iv",
            "mark_price",
            "underlying_price",
            "index_price",
            "interest_rate",
            "open_interest",
            "receive_time",
            "origin_partition",
            "origin",
        ],
        key: &["exchange", "symbol", "time", "event_id"],
        identity: &["origin_partition", "origin"],
        content: &["iv", "delta", "gamma", "theta", "vega", "mark_price", "open_interest"],
        time: "time",
        rule: Rule::First,
        height: "",
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
            assert!(spec.rule == Rule::Higher || spec.key.contains(&spec.time));
        }
    }
}
