//! `tapeline gaps`: the continuity of feeds.

use anyhow::Result;
use clap::Args;

use crate::config::Config;
use crate::gaps::{Hole, Wanted, list};
use crate::migrate;

/// Which holes to show.
#[derive(Debug, Args)]
pub struct GapsArgs {
    /// Only holes that nothing has filled yet.
    #[arg(long)]
    pub open: bool,
    /// Of this venue only.
    #[arg(long)]
    pub venue: Option<String>,
    /// Of these symbols only.
    #[arg(long, value_delimiter = ',')]
    pub symbol: Vec<String>,
    /// A JSON object a line; times in microseconds since the epoch.
    #[arg(long)]
    pub json: bool,
}

/// Shows them.
pub(super) async fn run(config: &Config, args: GapsArgs) -> Result<()> {
    let mut database = migrate::connect(&config.database.url).await?;
    migrate::check(&mut database).await?;
    let GapsArgs { open, venue, symbol, json } = args;
    let wanted = Wanted { open, venue, symbols: symbol, channels: Vec::new() };
    let holes = list(&mut database, &wanted).await?;
    if json {
        for hole in &holes {
            println!("{}", serde_json::to_string(hole)?);
        }
        return Ok(());
    }
    print!("{}", table(&holes));
    Ok(())
}

fn table(holes: &[Hole]) -> String {
    let mut out = format!(
        "{:<9} {:<24} {:<12} {:<27} {:<27} {:<11} {}\n",
        "venue", "symbol", "channel", "from", "to", "cause", "filled by"
    );
    for hole in holes {
        let to = hole.to.map_or_else(|| "open".to_owned(), |to| to.to_string());
        let Hole { venue, symbol, channel, from, cause, filled_by, .. } = hole;
        let by = filled_by.as_deref().unwrap_or("-");
        let from = from.to_string();
        out.push_str(&format!(
            "{venue:<9} {symbol:<24} {channel:<12} {from:<27} {to:<27} {cause:<11} {by}\n"
        ));
    }
    let filled = holes.iter().filter(|hole| hole.is_filled()).count();
    out.push_str(&format!("{} holes, {filled} of them filled\n", holes.len()));
    out
}

#[cfg(test)]
mod tests {
    use tapeline_schemas::Micros;

    use super::*;

    #[test]
    fn a_hole_that_has_no_end_yet_is_shown_as_open() {
        let open = Hole {
            venue: "KRAKEN".to_owned(),
            symbol: "BTC-USD".to_owned(),
            channel: "trade".to_owned(),
            from: Micros(1_618_678_142_557_535),
            to: None,
            state: "opened".to_owned(),
            cause: "disconnect".to_owned(),
            filled_by: None,
        };
        let filled = Hole {
            to: Some(open.from),
            state: "filled".to_owned(),
            filled_by: Some("backfill".to_owned()),
            ..open.clone()
        };
        let text = table(&[open, filled]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].contains(" open ") && lines[1].ends_with('-'), "{text}");
        assert!(lines[2].ends_with("backfill"), "{text}");
        assert_eq!(lines[3], "2 holes, 1 of them filled");
    }
}
