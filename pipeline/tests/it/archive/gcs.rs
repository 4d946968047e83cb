//! The archive in Google's Cloud Storage: its XML API, by a server that knows one service account.

use object_store::gcp::GoogleCloudStorageBuilder;
use serde::Deserialize;

use super::cloud::{BUCKET, Cloud, is_whole_or_named, refused};
use super::place::Place;
use super::s3::{Server, asked};

#[derive(Debug, Deserialize)]
struct Told {
    endpoint: String,
    /// Keys of service accounts, as Google hands them out.
    account: String,
    other: String,
    seen: String,
}

/// What it was asked.
#[derive(Debug, Deserialize)]
struct Seen {
    parts: u32,
    refused: u32,
}

fn cloud(told: &Told) -> Cloud {
    let bucket = GoogleCloudStorageBuilder::new()
        .with_bucket_name(BUCKET)
        .with_base_url(&told.endpoint)
        .with_service_account_key(&told.account)
        .with_client_options(object_store::ClientOptions::new().with_allow_http(true))
        .build()
        .expect("a bucket");
    Cloud {
        scheme: "gs",
        settings: vec![
            ("GOOGLE_BASE_URL", told.endpoint.clone()),
            ("GOOGLE_ALLOW_HTTP", "true".to_owned()),
        ],
        proof: "GOOGLE_SERVICE_ACCOUNT_KEY",
        right: told.account.clone(),
        wrong: told.other.clone(),
        missing: "NoSuchBucket",
        denied: "AuthenticationRequired",
        bucket: Box::new(bucket),
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs a server from PyPI: `make test-all`"]
async fn an_archive_in_gcs_is_whole_or_named_as_broken_and_nothing_is_lost_s3() {
    let place = Place::new("gcs").await;
    let server: Server<Told> = Server::start("gcs_server.py", &[]);
    let cloud = cloud(&server.told);
    is_whole_or_named(&place, &cloud).await;
    refused(&cloud.run(&place, &["archive", "lifecycle", "apply"]), "the store's own tools");
    let seen: Seen = asked(&server.told.seen).await;
    assert!(seen.parts >= 2 && seen.refused >= 3, "{seen:?}");
    place.finish().await;
}
