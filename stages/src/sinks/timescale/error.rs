//! What an error of the database means for the batch.

use crate::flow::SinkError;

/// Why a step did not succeed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The connection is gone or in an unknown state. Whether a COMMIT was heard is unknown too.
    Lost(String),
    /// The database refused for now; the connection is sound.
    Later(String),
    /// A key is there already.
    Unique(String),
    /// A row that can never be written.
    Data(String),
    /// The stage must not go on.
    Fatal(String),
}

impl Failure {
    /// As an answer to the loop, where no row is to blame.
    pub(super) fn into_sink_error(self) -> SinkError {
        match self {
            Failure::Fatal(reason) => SinkError::Fatal(reason),
            Failure::Lost(reason)
            | Failure::Later(reason)
            | Failure::Unique(reason)
            | Failure::Data(reason) => SinkError::Retry(reason),
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Failure::Lost(_))
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Failure {
        let sqlx::Error::Database(database) = &error else {
            return match error {
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::RowNotFound => {
                    Failure::Fatal(format!("the database answers otherwise than expected: {error}"))
                }
                _ => Failure::Lost(format!("database connection: {error}")),
            };
        };
        let code = database.code().unwrap_or_default();
        let text = format!("database: {} ({code})", database.message());
        match code.as_ref() {
            "23505" => Failure::Unique(text),
            // The session was ended by an administrator, a shutdown or a successor.
            "57P01" | "57P02" | "57P03" | "57P05" | "25P03" => Failure::Lost(text),
            code if code.starts_with("08") => Failure::Lost(text),
            // Data exceptions, constraints, and limits such as the largest row of an index.
            code if ["22", "23", "54"].iter().any(|class| code.starts_with(class)) => {
                Failure::Data(text)
            }
            // Missing tables or rights, a wrong password, no such database.
            code if ["28", "3D", "3F", "42"].iter().any(|class| code.starts_with(class)) => {
                Failure::Fatal(format!("{text}; has `tapeline migrate` been run?"))
            }
            // Deadlocks, serialization, timeouts, a full disk, too many connections, and whatever
            // is not known: a batch waits rather than being skipped (invariant 1).
            _ => Failure::Later(text),
        }
    }
}
