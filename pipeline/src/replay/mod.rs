//! Replay: ranges of the log once more, through the same stages and sinks, into the store, into a
//! shadow beside it, or into another topic (invariants 4 and 5).

mod book;
mod differ;
mod dropped;
mod offset;
mod plan;
mod progress;
mod promote;
mod report;
mod request;
mod run;
mod shadow;
mod steps;

pub use book::{Entry, list};
pub use offset::{Offset, Place, parse_time};
pub use plan::Part;
pub use progress::{Report, Reporter, Terminal};
pub use promote::{promote, remove};
pub use report::{DifferenceReport, differences};
pub use request::{Request, Target, check_name};
pub use run::{Ended, preview, resume, start};
