//! What can be wrong with a configuration.

use std::path::PathBuf;

use thiserror::Error;

/// Why a configuration was refused. No value of a secret is ever part of it.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file's name does not say its format.
    #[error("{}: unknown kind of file, expected .toml, .json, .yaml or .yml", file.display())]
    Extension {
        /// The file.
        file: PathBuf,
    },
    /// The file is not in its format.
    #[error("{}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Where and why.
        message: String,
    },
    /// An environment variable does not name a setting.
    #[error("environment variable {variable}: {message}")]
    Variable {
        /// The variable.
        variable: String,
        /// Why.
        message: String,
    },
    /// A key is unknown, or its value of the wrong kind.
    #[error("{origin}: {path}: {message}")]
    Value {
        /// The file or the environment variable.
        origin: String,
        /// The key, with its sections.
        path: String,
        /// What is wrong and what is allowed.
        message: String,
    },
    /// Values out of range.
    #[error("{origin}: {}", problems.join("; "))]
    Range {
        /// The file, or where the values came from.
        origin: String,
        /// Each with its key, its value and what is allowed.
        problems: Vec<String>,
    },
}
