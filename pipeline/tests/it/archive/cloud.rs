//! What holds in every cloud's store: who may not is refused, a killed process goes on, what is broken is named.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Output};

use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload};
use sqlx::{Executor, PgConnection};
use tapeline::archive::archived_kinds;

use super::place::{Place, ROWS, TABLES, fill, sums};

pub(super) const BUCKET: &str = "archive";
/// Rows of [`fill_large`].
const LARGE: i64 = 2_000;

/// A store's server, as the command is told of it.
pub(super) struct Cloud {
    pub(super) scheme: &'static str,
    pub(super) settings: Vec<(&'static str, String)>,
    /// The setting that proves who asks; the right one, and one that is not.
    pub(super) proof: &'static str,
    pub(super) right: String,
    pub(super) wrong: String,
    /// What is said where the bucket is not there, and where the proof is wrong.
    pub(super) missing: &'static str,
    pub(super) denied: &'static str,
    /// The bucket, to spoil what is in it.
    pub(super) bucket: Box<dyn ObjectStore>,
}

impl Cloud {
    fn tapeline(&self, place: &Place, arguments: &[&str], bucket: &str, proof: &str) -> Command {
        let mut command = place.command(arguments);
        command
            .env("TAPELINE__ARCHIVE__URL", format!("{}://{bucket}/tape", self.scheme))
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .env(self.proof, proof);
        command
    }

    pub(super) fn run(&self, place: &Place, arguments: &[&str]) -> Output {
        self.tapeline(place, arguments, BUCKET, &self.right).output().expect("runs")
    }
}

pub(super) fn succeeded(done: &Output) -> String {
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

pub(super) fn refused(ended: &Output, what: &str) {
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains(what), "{what}: {said}");
}

/// Rows that no compression makes small: their object is uploaded in parts.
async fn fill_large(database: &mut PgConnection) {
    let rows = format!(
        "insert into market_data_anomalies (time, origin_topic, origin_partition, origin, exchange, symbol, kind,
            flags, detail, receive_time)
         select timestamptz '2021-04-20T00:00:00Z' + n * interval '1 second', 'md.trade.raw', 1, n, 'KRAKEN', 'BTC-USD',
            'trade', '{{}}', (select string_agg(md5((n * 1000 + m)::text), '') from generate_series(1, 300) m),
            timestamptz '2021-04-20T00:00:00Z'
         from generate_series(1, {LARGE}) n"
    );
    database.execute(rows.as_str()).await.expect("rows");
}

/// Everything there is goes into the archive and comes back as it was, whatever happens on the way.
pub(super) async fn is_whole_or_named(place: &Place, cloud: &Cloud) {
    let mut database = place.database().await;
    fill(&mut database).await;
    fill_large(&mut database).await;
    let before = sums(&mut database).await;

    let lifecycle = ["lifecycle", "run"];
    for (bucket, proof, what) in
        [("missing", &cloud.right, cloud.missing), (BUCKET, &cloud.wrong, cloud.denied)]
    {
        let ended = cloud.tapeline(place, &lifecycle, bucket, proof).output().expect("runs");
        refused(&ended, what);
        assert_eq!(sums(&mut database).await, before, "nothing is dropped: {what}");
    }

    // killed while it writes, it goes on with what is there
    for point in ["archive.after_upload:3", "archive.before_manifest:2", "lifecycle.before_commit"]
    {
        let mut killed = cloud.tapeline(place, &lifecycle, BUCKET, &cloud.right);
        let ended = killed.env("TAPELINE_FAILPOINTS", point).output().expect("runs");
        assert_eq!(ended.status.signal(), Some(9), "{point}");
    }
    let report = succeeded(&cloud.run(place, &lifecycle));
    assert!(report.contains("dropped_rows"), "{report}");
    assert_eq!(sums(&mut database).await, vec!["-"; TABLES.len()], "all of it is in the archive");
    let removed: i64 = sqlx::query_scalar("select sum(rows)::bigint from tapeline_removals")
        .fetch_one(&mut database)
        .await
        .expect("books");
    assert_eq!(removed, ROWS + LARGE);

    spoil(place, cloud).await;

    for (kind, _) in archived_kinds() {
        let restore =
            ["restore", "--kind", kind.name(), "--date", "2021-01-01", "--to-date", "2021-12-31"];
        succeeded(&cloud.run(place, &restore));
    }
    assert_eq!(sums(&mut database).await, before, "row-identical");
}

/// Breaks an object and a manifest in turn: each is named, and mended again.
async fn spoil(place: &Place, cloud: &Cloud) {
    let day = "tape/kind=trade/exchange=KRAKEN/date=2021-04-17".into();
    let listed = cloud.bucket.list_with_delimiter(Some(&day)).await;
    let object = listed.expect("lists").objects.remove(0).location;
    let manifest = "tape/_manifests/kind=trade/date=2021-04-17/000.json".into();
    for (path, what) in
        [(&object, "the object was changed"), (&manifest, "it was changed, or cut off")]
    {
        let whole = cloud.bucket.get(path).await.expect("there").bytes().await.expect("bytes");
        let mut changed = whole.to_vec();
        changed[whole.len() / 2] ^= 0x80;
        for spoilt in [whole[..whole.len() / 2].to_vec(), changed] {
            cloud.bucket.put(path, PutPayload::from(spoilt)).await.expect("spoilt");
            refused(&cloud.run(place, &["restore", "--date", "2021-04-17"]), what);
        }
        cloud.bucket.put(path, PutPayload::from(whole)).await.expect("mended");
    }
    succeeded(&cloud.run(place, &["archive", "verify"]));
}
