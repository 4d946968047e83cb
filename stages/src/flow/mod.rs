//! The one loop: positions, batches, stages, sinks and sources.

mod batch;
mod loss;
mod origin;
mod originals;
mod owning;
mod record;
mod run;
mod sink;
mod source;
mod stage;
mod writer;

pub use batch::{Batch, Batcher, Position, Rejected, Span};
pub(crate) use originals::{Original, Originals};
pub(crate) use record::Slice;
pub use record::{Chunk, Contract, HeaderSlices, Headers, Record, Topic, TopicPartition};
pub use run::{Limits, run};
pub use sink::{Durable, QuarantineSink, RefusedRow, Resume, Sink, SinkError, Start, flush};
pub use source::{Input, Lost, Released, SchemaSource, Source};
pub use stage::{Checkpoint, In, Marker, Outcome, Output, Refusal, Reject, Stage};
