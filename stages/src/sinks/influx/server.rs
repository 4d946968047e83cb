//! Requests to the server, and what its answers mean for the batch.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, RETRY_AFTER};
use reqwest::{Client, Response, StatusCode, Url};

use super::{InfluxSettings, InfluxTarget};
use crate::tls::advised;

/// As much of an answer's body as is worth telling.
const SHOWN_BYTES: usize = 500;

/// What came of some lines.
#[derive(Debug)]
pub(super) enum Answer {
    /// All of them are durable.
    Written,
    /// At least one cannot be taken, or they are too many for one request: each half is tried.
    Refused(String),
    /// Not now; after this time, where the server says so.
    Later { reason: String, after: Option<Duration> },
    /// No line is at fault, and waiting does not help.
    Fatal(String),
}

pub(super) struct Server {
    client: Client,
    /// Of the request, without any secret.
    url: Url,
    target: InfluxTarget,
}

impl Server {
    pub(super) fn new(settings: InfluxSettings) -> Result<Server, String> {
        let InfluxSettings { url, target, trusted, answer } = settings;
        let mut url = Url::parse(&url).map_err(|error| format!("influx.url: {error}"))?;
        let (path, query) = match &target {
            InfluxTarget::V1 { database, .. } => ("write", vec![("db", database)]),
            InfluxTarget::V2 { org, bucket, .. } => {
                ("api/v2/write", vec![("org", org), ("bucket", bucket)])
            }
        };
        let path = format!("{}/{path}", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.query_pairs_mut().extend_pairs(query).append_pair("precision", "ns");
        let mut client =
            Client::builder().timeout(answer).redirect(reqwest::redirect::Policy::none());
        if !trusted.is_empty() {
            client = client.tls_certs_only(trusted);
        }
        let client = client.build().map_err(|error| format!("influx: {error}"))?;
        Ok(Server { client, url, target })
    }

    /// Writes some lines.
    pub(super) async fn write(&self, lines: String) -> Answer {
        let request = self.client.post(self.url.clone());
        let request = match &self.target {
            InfluxTarget::V1 { login: Some((user, password)), .. } => {
                request.basic_auth(user, Some(password))
            }
            InfluxTarget::V1 { login: None, .. } => request,
            InfluxTarget::V2 { token, .. } => {
                request.header(reqwest::header::AUTHORIZATION, format!("Token {token}"))
            }
        };
        let request = request.header(CONTENT_TYPE, "text/plain; charset=utf-8").body(lines);
        match request.send().await {
            Ok(response) => read(response).await,
            Err(error) => Answer::Later { reason: told(&error), after: None },
        }
    }
}

/// The error with its causes: reqwest's own text names neither.
fn told(error: &reqwest::Error) -> String {
    let mut text = format!("influx: {error}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    advised(text)
}

async fn read(response: Response) -> Answer {
    let status = response.status();
    if status.is_success() {
        return Answer::Written;
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    // Seconds; InfluxDB sends no date.
    let after = after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
    let body = response.text().await.unwrap_or_default();
    let body: String = body.trim().chars().take(SHOWN_BYTES).collect();
    judge(status, body, after)
}

/// Faults of the database that the server reports as if the lines were to blame, with what to do.
const NOT_THE_LINES: [(&str, &str); 3] = [
    (
        "partial write: field type conflict",
        "another writer made the field another type: give Tapeline a database of its own",
    ),
    ("partial write: max-series-per-database", "raise the server's limit, or write fewer symbols"),
    ("partial write: max-values-per-tag", "raise the server's limit, or write fewer symbols"),
];

fn judge(status: StatusCode, body: String, after: Option<Duration>) -> Answer {
    let told = format!("influx: {status}: {body}");
    let fatal = |advice: &str| Answer::Fatal(format!("{told}; {advice}"));
    match status {
        StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => {
            match NOT_THE_LINES.iter().find(|(text, _)| body.contains(text)) {
                Some((_, advice)) => fatal(advice),
                None => Answer::Refused(told),
            }
        }
        StatusCode::PAYLOAD_TOO_LARGE => Answer::Refused(told),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => fatal(
            "check influx.user and influx.password, or influx.token, and that they may write there",
        ),
        StatusCode::NOT_FOUND => fatal(
            "check influx.url and influx.version, and create influx.database, or influx.org and influx.bucket",
        ),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
            Answer::Later { reason: told, after }
        }
        status if status.is_server_error() => Answer::Later { reason: told, after },
        _ => {
            fatal("this is no answer of InfluxDB's to a write: check influx.url and influx.version")
        }
    }
}
