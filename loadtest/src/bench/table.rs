//! The results as a table: for the terminal, and for the README between two marks.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::results::Results;

/// What encloses the table in the README.
const BEGIN: &str = "<!-- results: made by `tapeline-loadtest bench --readme` -->";
const END: &str = "<!-- end of results -->";

/// How a line gets its figure.
enum Source {
    /// A series, with its spread.
    Series(&'static str),
    /// A quotient of two series.
    Ratio(&'static str),
}

use Source::{Ratio, Series};

/// The table's lines: what, where its figure is, and its target, if it has one.
const LINES: &[(&str, Source, &str)] = &[
    ("`limit`: one binary `psql \\copy` of the same rows", Series("limit"), ""),
    ("`store`: Kafka to TimescaleDB, fence and ledger on", Series("store"), ""),
    ("`store` ÷ `limit`", Ratio("store_to_limit"), "≥ 0.9"),
    ("Kafka Connect, Debezium's JDBC sink, rewritten inserts", Series("kafka_connect"), ""),
    ("`store` ÷ Kafka Connect", Ratio("store_to_kafka_connect"), "≥ 2.5"),
    ("Kafka Connect, `unnest` switched on", Series("kafka_connect_unnest"), ""),
    ("`store` ÷ Kafka Connect with `unnest`", Ratio("store_to_kafka_connect_unnest"), ""),
    ("`store`, half of the records repeated and not flagged", Series("store_duplicates"), ""),
    ("the same ÷ `store`", Ratio("duplicates_to_store"), "≥ 0.3"),
    ("`tape`: generator and every stage at once, trades", Series("tape"), "≥ 120,000"),
    ("`tape`: trades, tickers and books", Series("tape_mixed"), ""),
    (
        "produced to row visible at 20,000/s, 1 partition a topic, p50",
        Series("latency.row_p50"),
        "",
    ),
    ("produced to row visible, p99", Series("latency.row_p99"), "< 50"),
    ("produced to row visible, p99.9", Series("latency.row_p999"), ""),
    ("produced to value in Redis, p50", Series("latency.redis_p50"), ""),
    ("produced to value in Redis, p99", Series("latency.redis_p99"), "< 15"),
    ("produced to value in Redis, p99.9", Series("latency.redis_p999"), ""),
    ("produced to candle in Kafka, p50", Series("latency.candle_p50"), ""),
    ("produced to candle in Kafka, p99", Series("latency.candle_p99"), ""),
    ("produced to candle in Kafka, p99.9", Series("latency.candle_p999"), ""),
    ("most memory of `validate`, at full speed", Series("rss.validate"), ""),
    ("most memory of `store`", Series("rss.store"), ""),
    ("most memory of `cache`", Series("rss.cache"), ""),
    ("most memory of `candles`", Series("rss.candles"), ""),
    ("the database stopped: `validate`", Series("rss.validate_database_stopped"), "< 200"),
    ("the database stopped: `store`", Series("rss.store_database_stopped"), "< 200"),
    ("the database stopped: `cache`", Series("rss.cache_database_stopped"), "< 200"),
    ("the database stopped: `candles`", Series("rss.candles_database_stopped"), "< 200"),
    ("a database 50 ms away: 1 store", Series("scale_1"), ""),
    ("2 stores", Series("scale_2"), ""),
    ("4 stores", Series("scale_4"), ""),
    ("1 to 2 stores", Ratio("scale_1_to_2"), ""),
    ("2 to 4 stores", Ratio("scale_2_to_4"), "≥ 1.8"),
    ("decoding Binance, one core", Series("decode.BINANCE"), ""),
    ("decoding Kraken with its checksums, one core", Series("decode.KRAKEN"), "≥ 500,000"),
    ("decoding Upbit, one core", Series("decode.UPBIT"), ""),
];

/// What was measured, in Markdown.
pub(crate) fn table(results: &Results) -> String {
    let mut lines = vec![["what", "median", "spread", "rounds", "asked for"].map(str::to_owned)];
    for (what, source, asked) in LINES {
        let figure = match source {
            Series(name) => results.series.get(*name).map(|series| {
                let figure = format!("{} {}", figure(series.median), series.unit);
                let spread = format!("{:.0} %", series.spread * 100.0);
                [figure, spread, series.rounds.len().to_string()]
            }),
            Ratio(name) => results
                .ratios
                .get(*name)
                .map(|ratio| [format!("{ratio:.2} ×"), String::new(), String::new()]),
        };
        if let Some([figure, spread, rounds]) = figure {
            lines.push([(*what).to_owned(), figure, spread, rounds, (*asked).to_owned()]);
        }
    }
    let mut width = [0; 5];
    for line in &lines {
        for (width, cell) in width.iter_mut().zip(line) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let cells: Vec<String> =
            line.iter().zip(width).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if index == 0 {
            let rules = width.map(|width| "-".repeat(width));
            text.push_str(&format!("|-{}-|\n", rules.join("-|-")));
        }
    }
    text
}

/// A figure with the digits that mean something.
fn figure(value: f64) -> String {
    if value < 100.0 {
        return format!("{value:.1}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Where and when it was measured, in a sentence.
pub(crate) fn facts(results: &Results) -> String {
    let machine = &results.machine;
    let size = if results.quick { "a quick run, whose figures wander more" } else { "a full run" };
    format!(
        "{}, commit {}, {size}: {} cores ({}), {:.0} GiB, {}, PostgreSQL {}, TimescaleDB {}; broker, \
         database, generator and pipeline all on them. Load of the machine before: {:.1}.",
        results.date,
        results.commit,
        machine.cores,
        machine.processor,
        machine.memory_gib,
        machine.system,
        machine.postgres,
        machine.timescaledb,
        machine.load_before,
    )
}

/// Puts the table into a README between its marks.
pub(crate) fn into_readme(results: &Results, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let (before, rest) =
        text.split_once(BEGIN).with_context(|| format!("{} lacks {BEGIN}", path.display()))?;
    let (_, after) =
        rest.split_once(END).with_context(|| format!("{} lacks {END}", path.display()))?;
    let notes: String = results.notes.iter().map(|note| format!("\n- {note}")).collect();
    let notes = if notes.is_empty() { notes } else { format!("{notes}\n") };
    let (facts, table) = (facts(results), table(results));
    let text = format!("{before}{BEGIN}\n{facts}\n\n{table}{notes}{END}{after}");
    std::fs::write(path, text).with_context(|| format!("{}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_the_digits_that_mean_something() {
        for (value, text) in
            [(0.456, "0.5"), (99.94, "99.9"), (100.4, "100"), (1234.0, "1,234"), (1e6, "1,000,000")]
        {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn only_what_was_measured_is_in_the_table() {
        let mut results = Results::default();
        results.keep("store", "rows/s", vec![400_000.0, 380_000.0, 390_000.0]);
        results.conclude();
        let table = table(&results);
        assert!(table.contains("390,000 rows/s"), "{table}");
        assert_eq!(table.lines().count(), 3, "{table}");
    }

    #[test]
    fn the_readmes_table_is_replaced_and_nothing_else() {
        let path = std::env::temp_dir().join(format!("readme-{}", std::process::id()));
        std::fs::write(&path, format!("a\n{BEGIN}\nold\n{END}\nb\n")).expect("written");
        let mut results = Results::default();
        results.keep("store", "rows/s", vec![1_000.0]);
        for _ in 0..2 {
            into_readme(&results, &path).expect("replaced");
            let text = std::fs::read_to_string(&path).expect("read");
            assert!(text.starts_with("a\n") && text.ends_with("\nb\n"), "{text}");
            assert!(text.contains("1,000 rows/s") && !text.contains("old"), "{text}");
        }
        std::fs::remove_file(path).expect("removed");
    }
}
