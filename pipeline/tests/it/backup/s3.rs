//! A repository of backups in S3, over TLS, encrypted: it restores and is tested like one in a folder.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tapeline::migrate;

use super::{Cluster, insert, restored_trades, run, said, trades};
use crate::archive::{Server, Told, s3};

/// A certificate of localhost that signs itself, and its key.
fn certificate(folder: &Path) -> [PathBuf; 2] {
    let [certificate, key] = ["s3.pem", "s3.key"].map(|name| folder.join(name));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    openssl.args(["-nodes", "-days", "2", "-subj", "/CN=localhost"]);
    openssl.args(["-addext", "subjectAltName=DNS:localhost"]);
    run(openssl.arg("-keyout").arg(&key).arg("-out").arg(&certificate));
    [certificate, key]
}

/// The second repository in the server's bucket.
fn settings(s3: &Server<Told>, ca: &Path) -> Vec<(String, String)> {
    let (_, port) = s3.told.endpoint.rsplit_once(':').expect("a port");
    let ca = ca.display().to_string();
    let properties = [
        ("S3_ENDPOINT", "localhost"),
        ("S3_REGION", "us-east-1"),
        ("S3_URI_STYLE", "path"),
        ("S3_KEY", &s3.told.key),
        ("S3_KEY_SECRET", &s3.told.secret),
        ("STORAGE_PORT", port),
        ("STORAGE_CA_FILE", &ca),
    ];
    let repository = [("URL", "s3://archive/backup"), ("PASSPHRASE", "a-second-horse")];
    let properties = properties.map(|(name, value)| (format!("PROPERTIES__{name}"), value));
    let repository = repository.map(|(name, value)| (name.to_owned(), value));
    let all = repository.into_iter().chain(properties);
    all.map(|(name, value)| {
        (format!("TAPELINE__BACKUP__SECOND_REPOSITORY__{name}"), value.to_owned())
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long, needs pgBackRest and an S3 server from PyPI: `make test-all`"]
async fn a_second_repository_in_s3_restores_proves_itself_and_a_wrong_key_is_named_s4() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    migrate::up(&cluster.url()).await.expect("migrations");
    let [certificate, key] = certificate(&cluster.place());
    let s3 = s3(&[&certificate, &key]);
    let set = settings(&s3, &certificate);
    let at: Vec<_> = set.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let backup = |words: &[&str]| run(&mut cluster.command(words, &at)).stdout;

    let once = cluster.command(&["setup"], &at).output().expect("runs");
    assert!(said(&once).contains("restart the server"), "{}", said(&once));
    cluster.restart();
    backup(&["setup"]);
    let mut database = cluster.connect().await;
    insert(&mut database, 0, 1_000).await;
    backup(&["create", "--full"]);
    insert(&mut database, 1_000, 2_000).await;
    backup(&["create", "--incremental"]);
    let listed: Vec<Value> = serde_json::from_slice(&backup(&["list", "--json"])).expect("json");
    let second = listed.iter().filter(|backup| backup["repository"] == 2);
    let kinds: Vec<_> = second.map(|backup| backup["kind"].as_str().unwrap_or_default()).collect();
    assert_eq!(kinds, ["full", "incr"]);

    let tested = backup(&["verify", "--restore", "--repository", "2", "--json"]);
    let tested: Vec<Value> = serde_json::from_slice(&tested).expect("json");
    assert!(tested.len() == 1 && tested[0]["rows"].as_i64() >= Some(2_000), "{tested:?}");
    let into = cluster.place().join("latest");
    let to = into.display().to_string();
    backup(&["restore", "--latest", "--into", &to, "--repository", "2"]);
    assert_eq!(restored_trades(&cluster, &into).await, trades(&mut database).await);

    let secret = "TAPELINE__BACKUP__SECOND_REPOSITORY__PROPERTIES__S3_KEY_SECRET";
    let wrong = [&at[..], &[(secret, "no-such-secret")]].concat();
    let ended = cluster.command(&["list"], &wrong).output().expect("runs");
    let said = said(&ended);
    assert!(!ended.status.success() && said.contains("SignatureDoesNotMatch"), "{said}");
    for secret in ["no-such-secret", "a-second-horse", &s3.told.secret] {
        assert!(!said.contains(secret), "{said}");
    }
}
