//! What a recording was made with.

use serde_json::Value;
use tapeline_schemas::Kind;

use super::Recording;
use crate::venue::Settings;

/// Names of channels in a recording's configuration.
const CHANNELS: [(&str, Kind); 3] =
    [("trades", Kind::Trade), ("ticker", Kind::Ticker), ("l2_book", Kind::Book)];

impl Recording {
    /// Symbols and channels that were subscribed, as a connector's settings.
    pub fn settings(&self) -> Settings {
        let mut symbols: Vec<String> = Vec::new();
        let mut channels = Vec::new();
        for (name, kind) in CHANNELS {
            let Some(list) = self.configuration[name].as_array() else { continue };
            channels.push(kind);
            for symbol in list.iter().filter_map(Value::as_str) {
                if !symbols.iter().any(|known| known == symbol) {
                    symbols.push(symbol.to_owned());
                }
            }
        }
        Settings::new(symbols, channels)
    }
}
