//! The plots beside the results: throughput as bars, latency as curves. Written by hand as SVG.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::results::{Curve, Results};

const WIDTH: f64 = 760.0;
const LEFT: f64 = 210.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 34.0;
const COLOURS: [&str; 3] = ["#2f6f9f", "#c2571a", "#3f8f4f"];

/// The series of the plot of throughput.
const BARS: [(&str, &str); 9] = [
    ("limit", "binary COPY, one session"),
    ("store", "store"),
    ("store_duplicates", "store, half repeated"),
    ("kafka_connect", "Kafka Connect"),
    ("kafka_connect_unnest", "Kafka Connect, unnest"),
    ("tape", "all stages, trades"),
    ("tape_mixed", "all stages, mixed kinds"),
    ("scale_2", "far database, 2 stores"),
    ("scale_4", "far database, 4 stores"),
];

/// Writes both plots beside the results; of what was not measured there is none.
pub(crate) fn write(results: &Results, dir: &Path) -> Result<()> {
    let plots = [("throughput.svg", throughput(results)), ("latency.svg", latency(results))];
    for (name, plot) in plots {
        let path = dir.join(name);
        if let Some(plot) = plot {
            std::fs::write(&path, plot).with_context(|| format!("{}", path.display()))?;
        }
    }
    Ok(())
}

fn open(height: f64, title: &str, results: &Results) -> String {
    let machine = &results.machine;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
         font-family=\"sans-serif\" font-size=\"13\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n\
         <text x=\"16\" y=\"44\" fill=\"#666\">{}, commit {}, {} cores, broker and database beside</text>\n",
        results.date, results.commit, machine.cores
    )
}

/// Bars of medians; a thin line spans the rounds.
fn throughput(results: &Results) -> Option<String> {
    let bars: Vec<_> = BARS
        .iter()
        .filter_map(|(name, label)| Some((results.series.get(*name)?, *label)))
        .collect();
    let most = bars.iter().flat_map(|(series, _)| &series.rounds).copied().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let height = 64.0 + BAR * bars.len() as f64 + 16.0;
    let mut svg = open(height, "Throughput, records a second", results);
    let scale = (WIDTH - LEFT - RIGHT) / most;
    for (index, (series, label)) in bars.iter().enumerate() {
        let top = 60.0 + BAR * index as f64;
        let (middle, width) = (top + BAR / 2.0, series.median * scale);
        let least = series.rounds.iter().copied().fold(f64::MAX, f64::min) * scale + LEFT;
        let largest = series.rounds.iter().copied().fold(0.0, f64::max) * scale + LEFT;
        // Writing to memory cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n\
             <rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{}\"/>\n\
             <line x1=\"{least:.1}\" x2=\"{largest:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\" stroke=\"black\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\">{:.0} k</text>",
            LEFT - 8.0,
            middle + 4.0,
            top + 5.0,
            BAR - 10.0,
            COLOURS[0],
            largest.max(LEFT + width) + 6.0,
            middle + 4.0,
            series.median / 1_000.0,
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

/// Latency over percentiles: each step to the right is a tenth of what is left, milliseconds are logarithmic.
fn latency(results: &Results) -> Option<String> {
    let curves: Vec<(&String, &Curve)> = results.curves.iter().collect();
    let all = || curves.iter().flat_map(|(_, curve)| curve.iter().map(|(_, ms)| ms.max(0.1)));
    let most = all().fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let (left, top, right, bottom) = (70.0, 64.0, WIDTH - 90.0, 380.0);
    let lowest = all().fold(f64::MAX, f64::min).log10().floor();
    let highest = most.log10().ceil().max(lowest + 1.0);
    let x = |percentile: f64| {
        let nines = -(1.0 - (percentile / 100.0).min(0.9999)).log10();
        left + (right - left) * nines / 4.0
    };
    let y = |ms: f64| bottom - (bottom - top) * (ms.max(0.1).log10() - lowest) / (highest - lowest);
    let mut svg = open(430.0, "Latency at 20,000 records a second, milliseconds", results);
    for exponent in lowest as i32..=highest as i32 {
        let ms = 10_f64.powi(exponent);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{right}\" y1=\"{0:.1}\" y2=\"{0:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{1}\" y=\"{2:.1}\" text-anchor=\"end\">{ms}</text>",
            y(ms),
            left - 8.0,
            y(ms) + 4.0
        );
    }
    for percentile in [0.0, 50.0, 90.0, 99.0, 99.9, 99.99] {
        let _ = writeln!(
            svg,
            "<line x1=\"{0:.1}\" x2=\"{0:.1}\" y1=\"{top}\" y2=\"{bottom}\" stroke=\"#ddd\"/>\n\
             <text x=\"{0:.1}\" y=\"{1}\" text-anchor=\"middle\">{percentile}</text>",
            x(percentile),
            bottom + 20.0
        );
    }
    for ((name, curve), colour) in curves.iter().zip(COLOURS) {
        let points: Vec<String> =
            curve.iter().map(|(p, ms)| format!("{:.1},{:.1}", x(*p), y(*ms))).collect();
        let end = curve.last().map_or(bottom, |(_, ms)| y(*ms));
        let _ = writeln!(
            svg,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{name}</text>",
            points.join(" "),
            right + 8.0,
            end + 4.0
        );
    }
    let _ = writeln!(svg, "<text x=\"{}\" y=\"420\" fill=\"#666\">percentile</text>\n</svg>", left);
    Some(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_measured_is_drawn_and_nothing_else() {
        let mut results = Results::default();
        assert_eq!((throughput(&results), latency(&results)), (None, None));
        results.keep("store", "rows/s", vec![300_000.0, 400_000.0, 350_000.0]);
        results.curves.insert("row".into(), vec![(0.0, 4.0), (50.0, 8.0), (99.9, 120.0)]);
        let bars = throughput(&results).expect("drawn");
        assert_eq!(bars.matches("<rect").count(), 2, "the background and one bar: {bars}");
        assert!(bars.contains("350 k"), "{bars}");
        let curves = latency(&results).expect("drawn");
        assert_eq!(curves.matches("<polyline").count(), 1, "{curves}");
        assert!(!curves.contains("NaN") && !curves.contains("inf"), "{curves}");
    }
}
