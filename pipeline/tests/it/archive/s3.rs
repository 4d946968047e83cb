//! The archive in S3: a server that checks signatures, refuses some uploads, and loses the process.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use serde::Deserialize;
use sqlx::{Executor, PgConnection};
use tapeline::archive::archived_kinds;

use super::place::{Place, ROWS, TABLES, fill, sums};
use crate::python::interpreter;

/// The server, which ends with its standard input.
pub(crate) struct S3 {
    child: Child,
    pub(crate) told: Told,
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

impl S3 {
    /// `tls`: certificate of localhost, and its key.
    pub(crate) fn start(tls: &[&Path]) -> S3 {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/archive");
        let python = interpreter("venv-s3", &here.join("requirements.txt"));
        let mut child = Command::new(python)
            .arg(here.join("s3_server.py"))
            .args(tls)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("a line");
        let told = serde_json::from_str(&line).expect("where it is");
        S3 { child, told }
    }

    /// The command with the archive in `bucket`, and with `secret`.
    fn tapeline(&self, place: &Place, arguments: &[&str], bucket: &str, secret: &str) -> Command {
        let mut command = place.command(arguments);
        command
            .env("TAPELINE__ARCHIVE__URL", format!("s3://{bucket}/tape"))
            .env("AWS_ENDPOINT", &self.told.endpoint)
            .env("AWS_ALLOW_HTTP", "true")
            .env("AWS_REGION", "us-east-1")
            .env("AWS_ACCESS_KEY_ID", &self.told.key)
            .env("AWS_SECRET_ACCESS_KEY", secret)
            .env("AWS_SERVER_SIDE_ENCRYPTION", "AES256");
        command
    }

    fn run(&self, place: &Place, arguments: &[&str]) -> Output {
        self.tapeline(place, arguments, "archive", &self.told.secret).output().expect("runs")
    }

    /// The bucket, to spoil what is in it.
    fn bucket(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_bucket_name("archive")
            .with_endpoint(&self.told.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id(&self.told.key)
            .with_secret_access_key(&self.told.secret)
            .build()
            .expect("a bucket")
    }

    async fn seen(&self) -> Seen {
        let url = format!("{}/seen", self.told.endpoint);
        reqwest::get(url).await.expect("answers").json().await.expect("counts")
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It ends by itself; a failed wait leaves nothing to do.
        let _ = self.child.wait();
    }
}

fn succeeded(done: &Output) -> String {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

fn refused(ended: &Output, what: &str) {
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains(what), "{what}: {said}");
}

/// Rows that no compression makes small: their object is uploaded in parts.
async fn fill_large(database: &mut PgConnection) {
    database
        .execute(
            "insert into market_data_anomalies (time, origin_topic, origin_partition, origin, exchange, symbol, kind,
                flags, detail, receive_time)
             select timestamptz '2021-04-20T00:00:00Z' + n * interval '1 second', 'md.trade.raw', 1, n, 'KRAKEN', 'BTC-USD',
                'trade', '{}', (select string_agg(md5((n * 1000 + m)::text), '') from generate_series(1, 300) m),
                timestamptz '2021-04-20T00:00:00Z'
             from generate_series(1, 2000) n",
        )
        .await
        .expect("rows");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs an S3 server from PyPI: `make test-all`"]
async fn an_archive_in_s3_is_whole_or_named_as_broken_and_nothing_is_lost_s3() {
    let place = Place::new("s3").await;
    let mut database = place.database().await;
    fill(&mut database).await;
    fill_large(&mut database).await;
    let before = sums(&mut database).await;
    let s3 = S3::start(&[]);

    let lifecycle = ["lifecycle", "run"];
    for (bucket, secret, what) in [
        ("missing", s3.told.secret.as_str(), "NoSuchBucket"),
        ("archive", "wrong", "SignatureDoesNotMatch"),
    ] {
        let ended = s3.tapeline(&place, &lifecycle, bucket, secret).output().expect("runs");
        refused(&ended, what);
        assert_eq!(sums(&mut database).await, before, "nothing is dropped: {what}");
    }

    // killed while it writes, it goes on with what is there
    for point in ["archive.after_upload:3", "archive.before_manifest:2", "lifecycle.before_commit"]
    {
        let mut killed = s3.tapeline(&place, &lifecycle, "archive", &s3.told.secret);
        let ended = killed.env("TAPELINE_FAILPOINTS", point).output().expect("runs");
        assert_eq!(ended.status.signal(), Some(9), "{point}");
    }
    let report = succeeded(&s3.run(&place, &lifecycle));
    assert!(report.contains("dropped_rows"), "{report}");
    assert_eq!(sums(&mut database).await, vec!["-"; TABLES.len()], "all of it is in the archive");
    let removed: i64 = sqlx::query_scalar("select sum(rows)::bigint from tapeline_removals")
        .fetch_one(&mut database)
        .await
        .expect("books");
    assert_eq!(removed, ROWS + 2_000);
    let seen = s3.seen().await;
    assert!(seen.parts >= 2 && seen.refused >= 3 && seen.encrypted > 10, "{seen:?}");

    spoil(&place, &s3).await;

    assert!(succeeded(&s3.run(&place, &["archive", "lifecycle", "apply"])).contains("archive"));
    assert!(s3.seen().await.rules.contains("GLACIER"), "the rules arrived");
    for (kind, _) in archived_kinds() {
        let restore =
            ["restore", "--kind", kind.name(), "--date", "2021-01-01", "--to-date", "2021-12-31"];
        succeeded(&s3.run(&place, &restore));
    }
    assert_eq!(sums(&mut database).await, before, "row-identical");
    drop(s3);
    place.finish().await;
}

/// Breaks an object and a manifest in turn: each is named, and mended again.
async fn spoil(place: &Place, s3: &S3) {
    let bucket = s3.bucket();
    let day = "tape/kind=trade/exchange=KRAKEN/date=2021-04-17".into();
    let listed = bucket.list_with_delimiter(Some(&day)).await;
    let object = listed.expect("lists").objects.remove(0).location;
    let manifest = "tape/_manifests/kind=trade/date=2021-04-17/000.json".into();
    for (path, what) in
        [(&object, "the object was changed"), (&manifest, "it was changed, or cut off")]
    {
        let whole = bucket.get(path).await.expect("there").bytes().await.expect("bytes");
        let mut changed = whole.to_vec();
        changed[whole.len() / 2] ^= 0x80;
        for spoilt in [whole[..whole.len() / 2].to_vec(), changed] {
            bucket.put(path, PutPayload::from(spoilt)).await.expect("spoilt");
            refused(&s3.run(place, &["restore", "--date", "2021-04-17"]), what);
        }
        bucket.put(path, PutPayload::from(whole)).await.expect("mended");
    }
    succeeded(&s3.run(place, &["archive", "verify"]));
}
