//! REST requests to a venue, under its budget.

use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{DATE, RETRY_AFTER};
use tapeline_schemas::Micros;
use thiserror::Error;

use super::budget::RequestBudget;
use super::clock::RECORDED_AT;
use super::network::Network;

/// Longest time a request may take.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Largest answer taken; the largest symbol table today is about 20 MiB.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Pause after a refusal for too many requests that names none.
const DEFAULT_PAUSE: Duration = Duration::from_secs(60);

/// Why a request gave no answer.
#[derive(Debug, Error)]
pub enum RestError {
    /// No connection, a timeout, a broken answer.
    #[error("request failed: {0}")]
    Transport(#[from] reqwest::Error),
    /// Another status than 200.
    #[error("status {status}: {start}")]
    Status {
        /// The status.
        status: u16,
        /// Start of the body.
        start: String,
    },
    /// The body is larger than any real one.
    #[error("answer of more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
}

impl RestError {
    /// Whether asking again may help.
    pub fn transient(&self) -> bool {
        match self {
            RestError::Transport(_) => true,
            RestError::Status { status, .. } => *status >= 500 || *status == 429 || *status == 418,
            RestError::TooLarge => false,
        }
    }
}

/// An answer and the time it announces, if a playback sent it.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub body: Vec<u8>,
    /// Its recorded receive time.
    pub announced: Option<Micros>,
}

/// A venue's REST interface.
#[derive(Debug)]
pub struct Rest {
    client: reqwest::Client,
    base: String,
    budget: RequestBudget,
}

impl Rest {
    /// The interface at `base`, asked by way of `network` within `budget`.
    pub fn new(base: &str, network: &Network, budget: RequestBudget) -> Result<Rest, RestError> {
        let client = network.http()?.timeout(TIMEOUT).build()?;
        let base = base.trim_end_matches('/').to_owned();
        Ok(Rest { client, base, budget })
    }

    /// Waits until the budget allows one more request, of whatever way.
    pub(super) async fn allowed(&self) {
        self.budget.take(1).await;
    }

    /// Gets `path` (with its query) once the budget allows a request of this weight.
    pub async fn get(&self, path: &str, weight: u32) -> Result<Answer, RestError> {
        self.budget.take(weight).await;
        let mut response = self.client.get(format!("{}{path}", self.base)).send().await?;
        let status = response.status();
        // 418 is Binance's ban of those who go on after 429.
        if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::IM_A_TEAPOT) {
            self.budget.pause(retry_after(&response).unwrap_or(DEFAULT_PAUSE)).await;
        }
        let announced = header(&response, RECORDED_AT).and_then(|t| t.parse().ok()).map(Micros);
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(RestError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        if status != StatusCode::OK {
            let start = String::from_utf8_lossy(&body).chars().take(200).collect();
            return Err(RestError::Status { status: status.as_u16(), start });
        }
        Ok(Answer { body, announced })
    }
}

fn header<'a>(response: &'a reqwest::Response, name: &str) -> Option<&'a str> {
    response.headers().get(name)?.to_str().ok()
}

/// How long the venue wants to be left alone: seconds, or a moment beside the answer's own.
fn retry_after(response: &reqwest::Response) -> Option<Duration> {
    let wanted = header(response, RETRY_AFTER.as_str())?.trim();
    if let Ok(seconds) = wanted.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let sent = httpdate::parse_http_date(header(response, DATE.as_str())?).ok()?;
    httpdate::parse_http_date(wanted).ok()?.duration_since(sent).ok()
}
