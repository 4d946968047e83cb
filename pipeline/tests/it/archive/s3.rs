//! The archive in S3: a server that checks signatures and refuses some uploads.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use object_store::aws::AmazonS3Builder;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::cloud::{BUCKET, Cloud, is_whole_or_named, succeeded};
use super::place::Place;
use crate::python::interpreter;

/// A server in Python, which ends with its standard input, and what it said when it was up.
pub(crate) struct Server<T> {
    child: Child,
    pub(crate) told: T,
}

impl<T: DeserializeOwned> Server<T> {
    pub(super) fn start(script: &str, arguments: &[&Path]) -> Server<T> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/archive");
        let python = interpreter("venv-s3", &here.join("requirements.txt"));
        let mut child = Command::new(python)
            .arg(here.join(script))
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let told = serde_json::from_str(&line).expect("where it is");
        Server { child, told }
    }
}

impl<T> Drop for Server<T> {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself; a failed wait leaves nothing to do.
        let _ = self.child.wait();
    }
}

/// What a server says at `url` that it was asked.
pub(super) async fn asked<S: DeserializeOwned>(url: &str) -> S {
    reqwest::get(url).await.expect("answers").json().await.expect("counts")
}

#[derive(Debug, Deserialize)]
pub(crate) struct Told {
    pub(crate) endpoint: String,
    pub(crate) key: String,
    pub(crate) secret: String,
}

/// What it was asked.
#[derive(Debug, Deserialize)]
struct Seen {
    parts: u32,
    refused: u32,
    encrypted: u32,
    rules: String,
}

/// `tls`: certificate of localhost, and its key.
pub(crate) fn s3(tls: &[&Path]) -> Server<Told> {
    Server::start("s3_server.py", tls)
}

fn cloud(told: &Told) -> Cloud {
    let bucket = AmazonS3Builder::new()
        .with_bucket_name(BUCKET)
        .with_endpoint(&told.endpoint)
        .with_allow_http(true)
        .with_region("us-east-1")
        .with_access_key_id(&told.key)
        .with_secret_access_key(&told.secret)
        .build()
        .expect("a bucket");
    Cloud {
        scheme: "s3",
        settings: vec![
            ("AWS_ENDPOINT", told.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", told.key.clone()),
            ("AWS_SERVER_SIDE_ENCRYPTION", "AES256".to_owned()),
        ],
        proof: "AWS_SECRET_ACCESS_KEY",
        right: told.secret.clone(),
        wrong: "wrong".to_owned(),
        missing: "NoSuchBucket",
        denied: "SignatureDoesNotMatch",
        bucket: Box::new(bucket),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server from PyPI: `make test-all`"]
async fn an_archive_in_s3_is_whole_or_named_as_broken_and_nothing_is_lost_s3() {
    let place = Place::new("s3").await;
    let server = s3(&[]);
    let cloud = cloud(&server.told);
    is_whole_or_named(&place, &cloud).await;
    assert!(succeeded(&cloud.run(&place, &["archive", "lifecycle", "apply"])).contains(BUCKET));
    let seen: Seen = asked(&format!("{}/seen", server.told.endpoint)).await;
    assert!(seen.parts >= 2 && seen.refused >= 3 && seen.encrypted > 10, "{seen:?}");
    assert!(seen.rules.contains("GLACIER"), "the rules arrived");
    place.finish().await;
}
