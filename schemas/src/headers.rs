//! Names of the record headers. Values are ASCII text, so that any tool can read them.

/// Offset in the raw partition that a checked record stands for (the last one, for a range).
pub const ORIGIN: &str = "tl-origin";
/// First raw offset of a range that a marker stands for.
pub const ORIGIN_FIRST: &str = "tl-origin-first";
/// What became of the raw record, on markers: one of [`outcome`].
pub const OUTCOME: &str = "tl-outcome";
/// Comma-separated names of [`crate::Flag`]s; absent where there is none.
pub const FLAGS: &str = "tl-flags";
/// Version of the rules that judged the record.
pub const RULES: &str = "tl-rules";

/// Values of [`OUTCOME`].
pub mod outcome {
    /// The raw record is in the quarantine topic.
    pub const QUARANTINED: &str = "quarantined";
    /// The raw record is a control record; its headers are kept.
    pub const CONTROL: &str = "control";
    /// Kafka never delivered these offsets (transaction markers, compaction).
    pub const SKIPPED: &str = "skipped";
    /// Retention removed these offsets before they were read, and an operator accepted that.
    pub const LOST: &str = "lost";
}

/// Whether only `validate` may say what this header says.
pub fn is_verdict(name: &str) -> bool {
    [ORIGIN, ORIGIN_FIRST, OUTCOME, FLAGS, RULES].contains(&name)
}

/// What a control record says: one of the names in [`crate::Control`].
pub const CONTROL: &str = "tl-control";
/// Venue a control record speaks of.
pub const VENUE: &str = "tl-venue";
/// Which of several connectors of the same symbols wrote a control record; absent where there is one.
pub const WRITER: &str = "tl-writer";
/// Symbol a control record speaks of.
pub const SYMBOL: &str = "tl-symbol";
/// Kind of events a control record speaks of.
pub const CHANNEL: &str = "tl-channel";
/// Everything of the venue up to here has been published; microseconds since the epoch.
pub const THROUGH: &str = "tl-through";
/// Start of a hole, microseconds since the epoch.
pub const FROM: &str = "tl-from";
/// End of a hole, microseconds since the epoch.
pub const TO: &str = "tl-to";
/// Cause of a hole.
pub const CAUSE: &str = "tl-cause";
/// What filled a hole.
pub const FILLED_BY: &str = "tl-filled-by";

/// On a record sent again from quarantine: `topic/partition/offset` that it repeats.
pub const RETRY_OF: &str = "tl-retry-of";
/// In the quarantine topic: the run that is about to send the record of the same key again.
pub const RETRYING: &str = "tl-retrying";
/// In the quarantine topic: where the record of the same key was sent again to.
pub const RETRIED: &str = "tl-retried";
/// In the quarantine topic: why the record of the same key was dealt with otherwise.
pub const DISCARDED: &str = "tl-discarded";
