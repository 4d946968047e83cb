//! Lifecycle: what is old is compacted, compressed, archived, and only then dropped (S1, S2, S3).
//!
//! Nothing is dropped before its objects were read back and the table's rows, under a lock,
//! were found to be the same. The removal goes into the books (`tapeline_removals`) in the
//! transaction that drops, so that the audit stays whole.

mod compact;
mod plan;
mod run;

pub use plan::{Action, Step, plan};
pub use run::{Report, archive_days, run};
