//! Losses that an operator accepted: which windows they may have taken pieces of.

use serde::{Deserialize, Serialize};
use tapeline_schemas::{Micros, Timeframe};

use crate::flow::Reject;
use crate::messages::{Message, OutTopic};

/// Who lost records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// This stage: the store may have them, and the reviser computes the windows again.
    Own,
    /// `validate`: nobody has them, and the windows stay incomplete.
    Everywhere,
}

/// Up to which start windows may lack pieces, for each [`Loss`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Losses {
    own: Option<i64>,
    everywhere: Option<i64>,
}

impl Losses {
    /// Adds a loss, at least up to `until`.
    pub(super) fn widen(&mut self, kind: Loss, until: Micros) {
        let of_kind = match kind {
            Loss::Own => &mut self.own,
            Loss::Everywhere => &mut self.everywhere,
        };
        *of_kind = Some(of_kind.map_or(until.0, |before| before.max(until.0)));
    }

    /// Those of which `is_left` holds, which is asked for each alone.
    pub(super) fn only(self, is_left: impl Fn(Losses) -> bool) -> Losses {
        let own = Losses { own: self.own, everywhere: None };
        let everywhere = Losses { own: None, everywhere: self.everywhere };
        Losses {
            own: self.own.filter(|_| is_left(own)),
            everywhere: self.everywhere.filter(|_| is_left(everywhere)),
        }
    }

    /// An event of `time` shows how far the losses that are among `unmet` went.
    pub(super) fn reach(&mut self, unmet: Losses, time: Micros) {
        for (until, unmet) in [(&mut self.own, unmet.own), (&mut self.everywhere, unmet.everywhere)]
        {
            if unmet.is_some() {
                *until = (*until).max(Some(time.0));
            }
        }
    }

    /// Whether one of these is of a kind that is among `others`.
    pub(super) fn shares_kind(self, others: Losses) -> bool {
        (self.own.is_some() && others.own.is_some())
            || (self.everywhere.is_some() && others.everywhere.is_some())
    }

    /// Those that matter to a window from `start` on.
    pub(super) fn at(self, start: Micros) -> Losses {
        let matters = |until: &i64| start.0 <= *until;
        Losses { own: self.own.filter(matters), everywhere: self.everywhere.filter(matters) }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        *self == Losses::default()
    }

    /// Whether what is missing may be stored.
    pub(super) fn may_be_stored(self) -> bool {
        self.own.is_some()
    }
}

/// Offsets that the candle stage never read: their windows are to be computed again from what the
/// store took of them. Its JSON, in an object under `lost`, is a value in the dirty topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// Topic that lost them.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// First offset.
    pub first: i64,
    /// Last offset: the store's fence must have passed it.
    pub last: i64,
    /// Names of the timeframes that are built from the topic.
    pub timeframes: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    lost: Option<Lost>,
}

impl Lost {
    /// Reads a value of the dirty topic; `None` where it is not about a loss.
    pub fn read(value: &[u8]) -> Option<Lost> {
        serde_json::from_slice::<Named>(value).ok()?.lost
    }

    /// The timeframes.
    pub fn frames(&self) -> Result<Vec<Timeframe>, Reject> {
        let frames = self.timeframes.iter().map(|name| name.parse());
        frames.collect::<Result<_, _>>().map_err(|error: String| Reject::new("dirty", error))
    }

    /// As a message for `partition`.
    pub(super) fn to_message(&self, partition: i32) -> Message {
        Message {
            topic: OutTopic::CandleDirty,
            partition,
            key: self.topic.clone().into_bytes(),
            schema: None,
            // A struct of texts and numbers always has a JSON form.
            value: serde_json::to_vec(&Named { lost: Some(self.clone()) }).ok(),
            headers: Vec::new(),
        }
    }
}
