//! Dirty records: windows whose candle has to be computed again from what is stored.

use serde::{Deserialize, Serialize};
use tapeline_schemas::{Micros, Timeframe};

use crate::flow::Reject;
use crate::messages::{Message, OutTopic, symbol_key};

/// Reason for a dirty record that cannot be read.
const DIRTY: &str = "dirty";

/// Names the windows of one symbol and timeframe to be computed again, and what must be stored
/// before. Its JSON is the value of the records in the dirty topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dirty {
    /// Venue, upper case.
    pub exchange: String,
    /// `BASE-QUOTE`.
    pub symbol: String,
    /// Name of the timeframe.
    pub timeframe: String,
    /// Start of the first window, microseconds since the epoch.
    pub from: i64,
    /// End of the last window, exclusive, microseconds since the epoch.
    pub to: i64,
    /// Topic of the record that made them dirty.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Its offset: the store's fence must have passed it.
    pub offset: i64,
    /// Start of the hole that has been filled, where that made them dirty: the store must know it
    /// as filled, or the candles would stay incomplete for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled_from: Option<i64>,
}

impl Dirty {
    /// Reads a record's value.
    pub fn read(value: &[u8]) -> Result<Dirty, Reject> {
        let dirty: Dirty =
            serde_json::from_slice(value).map_err(|error| Reject::new(DIRTY, error))?;
        let frame = dirty.frame()?;
        let whole = [dirty.from, dirty.to].iter().all(|&time| time.rem_euclid(frame.micros()) == 0);
        if !whole || dirty.from >= dirty.to {
            return Err(Reject::new(DIRTY, "not a range of whole windows"));
        }
        Ok(dirty)
    }

    /// Its timeframe.
    pub fn frame(&self) -> Result<Timeframe, Reject> {
        self.timeframe.parse().map_err(|error| Reject::new(DIRTY, error))
    }

    /// The range as moments.
    pub fn range(&self) -> (Micros, Micros) {
        (Micros(self.from), Micros(self.to))
    }

    /// As a message for `partition`.
    pub fn to_message(&self, partition: i32) -> Message {
        Message {
            topic: OutTopic::CandleDirty,
            partition,
            key: symbol_key(&self.exchange, &self.symbol),
            schema: None,
            // A struct of texts and numbers always has a JSON form.
            value: serde_json::to_vec(self).ok(),
            headers: Vec::new(),
        }
    }
}
