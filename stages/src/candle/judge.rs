//! Stored candles held against what is stored under them, a day at a time, for the audit.

use std::collections::{BTreeMap, VecDeque};

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tapeline_schemas::{Micros, Timeframe};

use super::fold::{Bar, Version};
use super::stored::{FIGURES, ReviseError, Stamp, TRADE, WindowOf, candle, trade};

/// Rows fetched at a time (invariant 8).
const FETCH: usize = 5_000;

/// One final candle, judged.
#[derive(Debug)]
pub struct Judged<'j> {
    /// Its window.
    pub window: WindowOf<'j>,
    /// What it should be; none where it is right.
    pub wrong: Option<String>,
}

/// Figures of a stored candle, and whether its window ends where it says.
struct Found {
    bar: Bar,
    version: Version,
    ends_well: bool,
}

/// Candles of a symbol and day, by timeframe and start: bounded by the minutes of a day.
type Candles = BTreeMap<(Timeframe, Micros), Found>;

/// Judges the final candles of the UTC day that starts at `day`, within the transaction of
/// `conn`: minutes against their stored trades (unless `trades_removed`), longer ones against
/// their stored minutes. No window of a timeframe crosses midnight.
pub async fn judge_day(
    conn: &mut PgConnection,
    day: Micros,
    trades_removed: bool,
    mut visit: impl FnMut(Judged<'_>),
) -> Result<(), ReviseError> {
    let candles = format!(
        "select {FIGURES}, exchange, symbol, timeframe, close_time from market_data_ohlcv \
         where source = 'tapeline' and {} order by exchange, symbol",
        during(day)
    );
    let trades = format!(
        "select {TRADE}, exchange, symbol from market_data_trades where {} \
         order by exchange, symbol",
        during(day)
    );
    let mut candles = Cursor::declare(conn, "audit_candles", &candles).await?;
    let mut trades = Cursor::declare(conn, "audit_trades", &trades).await?;
    while let Some((exchange, symbol)) = candles.key(conn).await? {
        let mut found = Candles::new();
        while let Some(row) = candles.next_of(conn, &exchange, &symbol).await? {
            let (frame, candle) = read_candle(&row)?;
            found.insert((frame, candle.bar.first.time), candle);
        }
        let mut minutes = BTreeMap::new();
        while let Some((of_exchange, of_symbol)) = trades.key(conn).await? {
            let order = (&of_exchange, &of_symbol).cmp(&(&exchange, &symbol));
            if order.is_gt() {
                break;
            }
            while let Some(row) = trades.next_of(conn, &of_exchange, &of_symbol).await? {
                if order.is_eq() {
                    add_trade(&mut minutes, trade(&row)?)?;
                }
            }
        }
        for (&(frame, start), candle) in found.iter().filter(|(_, found)| found.version.is_final) {
            let computed = match frame {
                Timeframe::M1 if trades_removed => continue,
                Timeframe::M1 => minutes.get(&start).copied(),
                _ => sum_of_minutes(&found, start, frame.end(start))?,
            };
            let window = WindowOf { exchange: &exchange, symbol: &symbol, frame, start };
            visit(Judged { window, wrong: difference(candle, computed.as_ref()) });
        }
    }
    candles.close(conn).await?;
    trades.close(conn).await
}

/// A literal range: the planner then leaves out the other chunks.
fn during(day: Micros) -> String {
    let seconds = day.0.div_euclid(1_000_000);
    format!("time >= to_timestamp({seconds}) and time < to_timestamp({})", seconds + 86_400)
}

fn read_candle(row: &PgRow) -> Result<(Timeframe, Found), ReviseError> {
    let name: &str = row.try_get("timeframe")?;
    let frame: Timeframe =
        name.parse().map_err(|_| ReviseError::Unsound(format!("unknown timeframe {name}")))?;
    let (bar, version) = candle(row)?;
    let ends_well = row.try_get::<Stamp, _>("close_time")?.0 == frame.end(bar.first.time);
    Ok((frame, Found { bar, version, ends_well }))
}

fn add_trade(minutes: &mut BTreeMap<Micros, Bar>, trade: Bar) -> Result<(), ReviseError> {
    let start = Timeframe::M1.start(trade.first.time);
    let sum = match minutes.get(&start) {
        Some(sum) => sum.merge(&trade).map_err(|reject| ReviseError::Unsound(reject.detail))?,
        None => trade,
    };
    minutes.insert(start, sum);
    Ok(())
}

fn sum_of_minutes(found: &Candles, start: Micros, end: Micros) -> Result<Option<Bar>, ReviseError> {
    let minutes = found.range((Timeframe::M1, start)..(Timeframe::M1, end));
    Bar::sum(minutes.map(|(_, minute)| minute.bar))
        .map_err(|reject| ReviseError::Unsound(reject.detail))
}

fn difference(found: &Found, computed: Option<&Bar>) -> Option<String> {
    let Some(computed) = computed else {
        return Some("nothing is stored that it could be made of".to_owned());
    };
    if !found.ends_well {
        return Some("its close time is not the end of its window".to_owned());
    }
    let texts = |bar: &Bar| {
        [
            ("open", bar.open.to_string()),
            ("high", bar.high.to_string()),
            ("low", bar.low.to_string()),
            ("close", bar.close.to_string()),
            ("volume", bar.volume.to_string()),
            ("quote_volume", bar.quote_volume.to_string()),
            ("trades_count", bar.trades_count.to_string()),
            ("receive_time", bar.receive_time.0.to_string()),
        ]
    };
    let pairs = texts(&found.bar).into_iter().zip(texts(computed));
    let differs = pairs.filter(|(stored, should)| stored != should);
    let words: Vec<String> = differs
        .map(|((name, stored), (_, should))| format!("{name} {stored}, should be {should}"))
        .collect();
    (!words.is_empty()).then(|| words.join("; "))
}

/// Rows in the order of exchange and symbol, some at a time.
struct Cursor {
    name: &'static str,
    rows: VecDeque<PgRow>,
    ended: bool,
}

impl Cursor {
    async fn declare(
        conn: &mut PgConnection,
        name: &'static str,
        query: &str,
    ) -> Result<Cursor, ReviseError> {
        let declare = format!("declare {name} no scroll cursor for {query}");
        sqlx::query(&declare).persistent(false).execute(conn).await?;
        Ok(Cursor { name, rows: VecDeque::new(), ended: false })
    }

    /// Exchange and symbol of the next row.
    async fn key(
        &mut self,
        conn: &mut PgConnection,
    ) -> Result<Option<(String, String)>, ReviseError> {
        if self.rows.is_empty() && !self.ended {
            let fetch = format!("fetch {FETCH} from {}", self.name);
            self.rows = sqlx::query(&fetch).persistent(false).fetch_all(conn).await?.into();
            self.ended = self.rows.len() < FETCH;
        }
        let key = |row: &PgRow| Ok((row.try_get("exchange")?, row.try_get("symbol")?));
        self.rows.front().map(key).transpose()
    }

    /// The next row, if it is of this symbol.
    async fn next_of(
        &mut self,
        conn: &mut PgConnection,
        exchange: &str,
        symbol: &str,
    ) -> Result<Option<PgRow>, ReviseError> {
        let same = self.key(conn).await?.is_some_and(|key| key.0 == exchange && key.1 == symbol);
        Ok(if same { self.rows.pop_front() } else { None })
    }

    async fn close(self, conn: &mut PgConnection) -> Result<(), ReviseError> {
        sqlx::query(&format!("close {}", self.name)).persistent(false).execute(conn).await?;
        Ok(())
    }
}
