//! The quarantine topic as people work with it: what is in it, sending it again, setting it aside.
//!
//! All state is in the topic itself. What is done about a record is a follow-up: a record without
//! a value under the same key, in the same partition, whose header says what. It comes later than
//! the record it speaks of, so retention takes that one first.

mod entry;
mod export;
mod index;
mod retry;

pub use entry::{Entry, Filter, Kept, Place, State};
pub use export::{Bytes, json_line, write_files};
pub use index::{find, kept, list};
pub use retry::{RetryOptions, RetryReport, discard, retry};
