//! Prices of history that do not belong there (O4).
//!
//! The stream judges a price by what came before it. History knows what came after too: a price is an
//! outlier where both sides say so, and a real change of level is none.

use anyhow::Result;
use futures_util::TryStreamExt as _;
use serde_json::json;
use tapeline_schemas::Money;
use tapeline_stages::validate::Estimate;

use super::Patient;
use super::report::{Severity, Target};

/// Outliers that are named.
const SHOWN: usize = 5;

/// A minute of one symbol: its time as text, low, high and close.
struct Minute {
    time: String,
    low: i128,
    high: i128,
    close: i128,
}

/// A price and why it is odd.
struct Outlier {
    symbol: (String, String),
    time: String,
    price: Money,
    median: Money,
}

pub(super) async fn examine(patient: &mut Patient<'_>) -> Result<()> {
    let hours = i64::from(patient.scope.history_hours);
    if hours == 0 {
        return Ok(());
    }
    let limit = patient.config.validate.price_jump_deviations;
    let mut rows = sqlx::query_as::<_, (String, String, String, String, String, String)>(
        "select exchange, symbol, time::text, low::text, high::text, close::text from market_data_ohlcv c
         where timeframe = '1m' and source = 'tapeline'
             and time >= (select max(time) from market_data_ohlcv where timeframe = '1m') - $1 * interval '1 hour'
         order by exchange, symbol, c.time",
    )
    .bind(hours)
    .fetch(&mut patient.database);
    let (mut minutes, mut judged, mut outliers) = (Vec::new(), 0_u64, Vec::new());
    let mut symbol = (String::new(), String::new());
    while let Some((exchange, name, time, low, high, close)) = rows.try_next().await? {
        if (symbol.0.as_str(), symbol.1.as_str()) != (exchange.as_str(), name.as_str()) {
            judge(&symbol, &minutes, limit, &mut outliers);
            minutes.clear();
            symbol = (exchange, name);
        }
        let price = |text: &str| text.parse::<Money>().ok().map(Money::mantissa);
        // a number of more digits than the pipeline writes is somebody else's row
        if let (Some(low), Some(high), Some(close)) = (price(&low), price(&high), price(&close)) {
            minutes.push(Minute { time, low, high, close });
            judged += 1;
        }
    }
    drop(rows);
    judge(&symbol, &minutes, limit, &mut outliers);
    let severity = if outliers.is_empty() { Severity::Ok } else { Severity::Warning };
    let shown: Vec<String> = outliers.iter().take(SHOWN).map(Outlier::shown).collect();
    let message = match shown.as_slice() {
        [] => format!("none in {judged} minutes of the last {hours} h"),
        shown => format!(
            "{} in {judged} minutes of the last {hours} h: {}",
            outliers.len(),
            shown.join("; ")
        ),
    };
    let figures: Vec<_> = outliers.iter().map(Outlier::figures).collect();
    let finding = patient.report.find("price outliers", severity, message);
    finding.with_figures(json!({"minutes": judged, "outliers": figures}));
    if let Some(first) = outliers.first() {
        let line = format!(
            "select * from market_data_trades where exchange = '{}' and symbol = '{}' and price = {} and time >= '{}' limit 5;",
            first.symbol.0.replace('\'', "''"),
            first.symbol.1.replace('\'', "''"),
            first.price,
            first.time
        );
        finding.advise(Target::Postgresql, line, false);
    }
    Ok(())
}

/// Judges each minute's extremes by the closes before it and by those after it.
fn judge(symbol: &(String, String), minutes: &[Minute], limit: u32, outliers: &mut Vec<Outlier>) {
    let sides = |minute: &Minute, estimate: &Estimate| {
        [minute.low, minute.high]
            .map(|price| estimate.judge(price, limit).map(|(median, _)| median))
    };
    let mut after = Vec::with_capacity(minutes.len());
    let mut estimate = Estimate::default();
    for minute in minutes.iter().rev() {
        after.push(sides(minute, &estimate));
        estimate.push(minute.close);
    }
    let mut estimate = Estimate::default();
    for (minute, after) in minutes.iter().zip(after.into_iter().rev()) {
        let before = sides(minute, &estimate);
        estimate.push(minute.close);
        for (price, (before, after)) in
            [minute.low, minute.high].into_iter().zip(before.into_iter().zip(after))
        {
            let (Some(median), Some(_)) = (before, after) else { continue };
            let (Ok(price), Ok(median)) =
                (Money::from_mantissa(price), Money::from_mantissa(median))
            else {
                continue;
            };
            outliers.push(Outlier {
                symbol: symbol.clone(),
                time: minute.time.clone(),
                price,
                median,
            });
            if minute.low == minute.high {
                break;
            }
        }
    }
}

impl Outlier {
    fn shown(&self) -> String {
        let (exchange, symbol) = &self.symbol;
        format!("{exchange} {symbol} {} at {}, around it {}", self.price, self.time, self.median)
    }

    fn figures(&self) -> serde_json::Value {
        json!({
            "exchange": self.symbol.0, "symbol": self.symbol.1, "time": self.time,
            "price": self.price.to_string(), "median": self.median.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(prices: impl IntoIterator<Item = (i128, i128)>) -> Vec<Minute> {
        let minute =
            |(index, (close, high))| Minute { time: format!("{index}"), low: close, high, close };
        prices.into_iter().enumerate().map(minute).collect()
    }

    fn outliers_of(minutes: &[Minute]) -> Vec<String> {
        let mut outliers = Vec::new();
        judge(&("V".into(), "S".into()), minutes, 12, &mut outliers);
        outliers.into_iter().map(|outlier| outlier.time).collect()
    }

    #[test]
    fn a_spike_is_an_outlier_and_a_change_of_level_is_none_o4() {
        let spike = (0..100).map(|n| (100_000 + n % 7, if n == 50 { 180_000 } else { 100_010 }));
        assert_eq!(outliers_of(&minutes(spike)), ["50"]);
        let level = (0..100).map(|n| if n < 50 { (100_000, 100_010) } else { (180_000, 180_010) });
        assert!(outliers_of(&minutes(level)).is_empty());
    }
}
