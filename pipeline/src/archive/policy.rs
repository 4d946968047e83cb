//! The bucket's own rules for old objects (S3).

use anyhow::{Context as _, Result, bail, ensure};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsAuthorizer};
use object_store::client::HttpRequest;

use super::store::{Store, options};
use crate::config::ArchiveConfig;

/// The rules, as `PutBucketLifecycleConfiguration` takes them: infrequent access after 30 days,
/// Glacier after 90.
/// <https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketLifecycleConfiguration.html>
const POLICY: &str = include_str!("../../../ops/s3-lifecycle.xml");

/// Gives the archive's bucket the rules; returns its name. They are for the folder of the archive alone.
pub async fn apply_policy(config: &ArchiveConfig) -> Result<String> {
    let url = Store::open(config)?.url().clone();
    let Some(bucket) = url.host_str().filter(|_| matches!(url.scheme(), "s3" | "s3a")) else {
        bail!("archive.url is not s3://…: set such rules with the store's own tools");
    };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
    for (key, value) in options(config, url.scheme()) {
        // `Store::open` has refused the configuration's own that are unknown; the environment
        // holds settings of other programs too
        if let Ok(key) = key.parse::<AmazonS3ConfigKey>() {
            builder = builder.with_config(key, value);
        }
    }
    let setting = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
    let region = setting(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".into());
    let endpoint = match setting(AmazonS3ConfigKey::Endpoint) {
        Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
        None => format!("https://{bucket}.s3.{region}.amazonaws.com"),
    };
    let store = builder.build().context("archive.properties")?;
    let credential =
        store.credentials().get_credential().await.context("credentials of the archive")?;
    let body = POLICY.replace("{prefix}", url.path().trim_matches('/'));
    let mut request = HttpRequest::new(body.clone().into());
    *request.method_mut() = reqwest::Method::PUT;
    *request.uri_mut() = format!("{endpoint}?lifecycle").parse()?;
    let sum = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    request.headers_mut().insert("x-amz-checksum-sha256", base64(sum.as_ref()).parse()?);
    AwsAuthorizer::new(&credential, "s3", &region).try_authorize(&mut request, None)?;
    let answer = reqwest::Client::new()
        .put(request.uri().to_string())
        .headers(request.headers().clone())
        .body(body)
        .send()
        .await
        .context("the store does not answer")?;
    let status = answer.status();
    ensure!(status.is_success(), "the store refuses: {status} {}", answer.text().await?);
    Ok(bucket.to_owned())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
            << (8 * (3 - three.len()));
        for place in 0..4 {
            let sign = ALPHABET[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place > three.len() { '=' } else { char::from(sign) });
        }
    }
    text
}
