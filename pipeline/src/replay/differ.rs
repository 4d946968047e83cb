//! What sets a shadow's rows apart from the live ones: the same statements count and repair.

use tapeline_schemas::Kind;
use tapeline_stages::flow::Topic;
use tapeline_stages::store::Table;

use super::{Request, shadow};
use crate::difference::list;

/// A shadow, as the statements need it.
pub(super) struct Shadow<'s> {
    pub(super) name: &'s str,
    pub(super) request: &'s Request,
    /// The topics that its store read, by kind: live or its own.
    pub(super) topics: Vec<Topic>,
    /// The raw topics behind them.
    pub(super) raw: Vec<(Kind, String)>,
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn same(columns: &[&str], left: &str, right: &str) -> String {
    format!("({}) = ({})", list(columns, left), list(columns, right))
}

impl Shadow<'_> {
    /// The tables that are compared, candles last.
    pub(super) fn tables(&self) -> Vec<Table> {
        let of = |table: &Table| match table {
            Table::Trades => self.has(Kind::Trade),
            Table::Ticker => self.has(Kind::Ticker),
            Table::Orderbook => self.has(Kind::Book),
            // Without new judgement there are no other anomalies.
            Table::Anomalies => self.request.revalidate,
            Table::Ohlcv => self.has(Kind::Trade),
            Table::OptionData => self.has(Kind::Option),
            // Rows of these are replaced by what lies outside of the range.
            Table::Gaps
            | Table::Flows
            | Table::Predictions
            | Table::Portfolios
            | Table::Positions
            | Table::PositionHistory
            | Table::Orders => false,
        };
        Table::ALL.into_iter().filter(of).collect()
    }

    fn has(&self, kind: Kind) -> bool {
        self.topics.iter().any(|topic| topic.kind == kind)
    }

    fn table(&self, table: Table) -> String {
        format!("\"{}\".{}", shadow::schema(self.name), table.name())
    }

    /// Raw offsets that the shadow accounts for: `ranges (kind, origin_topic, partition, first, last)`.
    pub(super) fn ranges(&self) -> String {
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|topic| {
                let raw = self.raw.iter().find(|(kind, _)| *kind == topic.kind);
                let raw = raw.map_or("", |(_, name)| name);
                format!("({}, {}, {})", quoted(topic.kind.name()), quoted(&topic.name), quoted(raw))
            })
            .collect();
        format!(
            "ranges as materialized (
                select kind, origin_topic, partition, min(first_origin) as first, max(last_origin) as last
                from \"{}\".tapeline_ledger join (values {}) as t (kind, topic, origin_topic) using (topic)
                group by kind, origin_topic, partition)",
            shadow::schema(self.name),
            topics.join(", ")
        )
    }

    /// Whether the shadow was asked for a row's symbol and time.
    fn asked(&self, row: &str) -> String {
        let mut asked = vec!["true".to_owned()];
        if !self.request.symbols.is_empty() {
            let symbols: Vec<_> = self.request.symbols.iter().map(|one| quoted(one)).collect();
            let symbols = symbols.join(", ");
            asked.push(format!(
                "({row}.symbol in ({symbols}) or {row}.exchange || ':' || {row}.symbol in ({symbols}))"
            ));
        }
        if let Some(from) = self.request.from_event_time {
            asked.push(format!(
                "{row}.time >= to_timestamp({}) + interval '{} microseconds'",
                from.div_euclid(1_000_000),
                from.rem_euclid(1_000_000)
            ));
        }
        asked.join(" and ")
    }

    /// Whether a live row `l` is from a record that the shadow read.
    fn in_range(table: Table) -> &'static str {
        match table {
            Table::Trades => RANGE_TRADE,
            Table::Ticker => {
                "exists (select from ranges r where r.kind = 'ticker' and r.partition = l.origin_partition
                and l.origin between r.first and r.last)"
            }
            Table::Orderbook => {
                "exists (select from ranges r where r.kind = 'book' and r.partition = l.origin_partition
                and l.origin between r.first and r.last)"
            }
            Table::Anomalies => {
                "exists (select from ranges r where r.origin_topic = l.origin_topic
                and r.partition = l.origin_partition and l.origin between r.first and r.last)"
            }
            Table::OptionData => {
                "exists (select from ranges r where r.kind = 'option' and r.partition = l.origin_partition
                and l.origin between r.first and r.last)"
            }
            _ => "false",
        }
    }

    /// Which row differs how: `what` and the table's key.
    pub(super) fn differences(&self, table: Table) -> String {
        if table == Table::Ohlcv {
            return self.candles();
        }
        let (ranges, shadow, live) = (self.ranges(), self.table(table), table.name());
        let (key, columns) = (table.key(), table.columns());
        format!(
            "with {ranges}, live as (select * from public.{live} l where {in_range} and {asked})
            select 'missing' as what, {of_shadow} from {shadow} s
                where not exists (select from public.{live} l where {same})
            union all
            select 'extra', {of_live} from live l
                where not exists (select from {shadow} s where {same})
            union all
            select 'changed', {of_live} from live l join {shadow} s on {same}
                where ({left}) is distinct from ({right})",
            in_range = Self::in_range(table),
            asked = self.asked("l"),
            of_shadow = list(key, "s"),
            of_live = list(key, "l"),
            same = same(key, "l", "s"),
            left = list(columns, "l"),
            right = list(columns, "s"),
        )
    }

    /// Candles are compared where all of their stored trades are from the range: a window at its
    /// edge has only a part of them. Behind the last window that the shadow closed nothing is extra.
    fn candles(&self) -> String {
        let table = Table::Ohlcv;
        let mut content = table.content().to_vec();
        content.extend(["receive_time", "final"]);
        let whole = |row: &str| {
            format!(
                "{} and not exists (select from public.market_data_trades l
                where l.exchange = {row}.exchange and l.symbol = {row}.symbol
                and l.time >= {row}.time and l.time < {row}.close_time and not {RANGE_TRADE})",
                self.asked(row)
            )
        };
        format!(
            "with {ranges},
            shadow as materialized (select * from {shadow} s where s.source = 'tapeline' and {whole_shadow}),
            closed as (select exchange, symbol, timeframe, min(time) as first, max(close_time) as last
                from shadow group by exchange, symbol, timeframe),
            live as materialized (select c.* from public.{live} c join closed on
                (closed.exchange, closed.symbol, closed.timeframe) = (c.exchange, c.symbol, c.timeframe)
                and c.time >= closed.first and c.close_time <= closed.last
                where c.source = 'tapeline' and {whole_live})
            select 'missing' as what, {of_shadow} from shadow s
                where not exists (select from live l where {same})
            union all
            select 'extra', {of_live} from live l
                where not exists (select from shadow s where {same})
            union all
            select 'changed', {of_live} from live l join shadow s on {same}
                where ({left}) is distinct from ({right})",
            ranges = self.ranges(),
            shadow = self.table(table),
            live = table.name(),
            whole_shadow = whole("s"),
            whole_live = whole("c"),
            of_shadow = list(table.key(), "s"),
            of_live = list(table.key(), "l"),
            same = same(table.key(), "l", "s"),
            left = list(&content, "l"),
            right = list(&content, "s"),
        )
    }

    /// Takes the differing rows of a table as `d`, and repairs one sort of them; gives the days.
    pub(super) fn repair(&self, table: Table, what: &str) -> String {
        let (shadow, live, key) = (self.table(table), table.name(), table.key());
        let columns: Vec<_> = table.columns().iter().map(|c| format!("\"{c}\"")).collect();
        let rest: Vec<_> = table
            .columns()
            .iter()
            .filter(|column| !key.contains(column))
            .map(|column| format!("\"{column}\" = s.\"{column}\""))
            .collect();
        let (of_d, by_key) = (same(key, "d", "s"), same(key, "d", "l"));
        match what {
            "missing" => format!(
                "insert into public.{live} ({columns}) select {of_shadow} from {shadow} s
                join differing d on {of_d} where d.what = 'missing' on conflict do nothing
                returning (time at time zone 'UTC')::date::text",
                columns = columns.join(", "),
                of_shadow = list(table.columns(), "s"),
            ),
            "extra" => format!(
                "delete from public.{live} l using differing d where {by_key} and d.what = 'extra'
                returning (l.time at time zone 'UTC')::date::text"
            ),
            _ => format!(
                "update public.{live} l set {set} from {shadow} s join differing d on {of_d}
                where {by_key} and d.what = 'changed' returning (l.time at time zone 'UTC')::date::text",
                set = rest.join(", "),
            ),
        }
    }
}

const RANGE_TRADE: &str = "exists (select from ranges r where r.kind = 'trade'
    and r.partition = l.origin_partition and l.origin between r.first and r.last)";
