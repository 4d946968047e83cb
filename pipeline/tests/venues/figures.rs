//! The figures of what was published, in the form of `recorded`.

use tapeline_schemas::Money;

use crate::common::Published;
use crate::recorded::Figures;

/// The same figures of what was published.
pub(crate) fn published_figures(all: &[Published]) -> Figures {
    let mut out = Figures::new();
    // A side without an order is written as 0.
    let figure = |money: Option<Money>| money.unwrap_or_default().to_string();
    for published in all {
        let (kind, figures, time) = match published {
            Published::Trade(t) => {
                ("trade", vec![t.price.to_string(), t.amount.to_string()], t.receive_time)
            }
            Published::Ticker(t) => ("ticker", vec![figure(t.bid), figure(t.ask)], t.receive_time),
            Published::Option(o) => {
                let all = [o.iv, o.delta, o.gamma, o.theta, o.vega, o.open_interest];
                ("option", all.map(figure).to_vec(), o.receive_time)
            }
            Published::Candle(c) => {
                let mut figures: Vec<String> =
                    [c.open, c.high, c.low, c.close, c.volume].map(|m| m.to_string()).to_vec();
                figures.push(c.quote_volume.to_string());
                ("candle", figures, c.receive_time)
            }
            _ => continue,
        };
        out.entry(kind).or_default().push((figures.join(" "), time));
    }
    for list in out.values_mut() {
        list.sort_by_key(|(_, time)| *time);
    }
    out
}
