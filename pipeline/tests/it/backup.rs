//! Backups that prove themselves (S4): a PostgreSQL of the test's own, two repositories, the binary as an operator
//! runs it.

mod s3;

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tapeline::migrate;

use crate::common::eventually;

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
const PASSPHRASE: &str = "correct-horse";

/// A server and its repositories; gone with the test.
struct Cluster {
    dir: PathBuf,
    port: u16,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

/// What an ended command said, on both ways out.
fn said(ended: &Output) -> String {
    let (out, err) = (&ended.stdout, &ended.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

fn run(command: &mut Command) -> Output {
    let ended = command.output().expect("runs");
    assert!(ended.status.success(), "{command:?}: {}", said(&ended));
    ended
}

/// A command as the account that runs PostgreSQL.
fn as_owner(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups", "--"]).arg(program);
    command.current_dir("/");
    command
}

impl Cluster {
    fn start() -> Cluster {
        let port = free_port();
        // Short: a socket is in it.
        let dir = std::env::temp_dir().join(format!("tlb{}-{port}", std::process::id()));
        let cluster = Cluster { dir, port };
        cluster.services("up");
        for repository in ["one", "two"] {
            cluster.folder(repository);
        }
        cluster
    }

    fn services(&self, action: &str) {
        let mut services = Command::new(SERVICES);
        services
            .args([action, "postgres"])
            .env("TAPELINE_SERVICES_DIR", &self.dir)
            .env("TAPELINE_POSTGRES_PORT", self.port.to_string());
        run(&mut services);
    }

    fn restart(&self) {
        self.services("down");
        self.services("up");
    }

    /// Where what belongs to the server is.
    fn place(&self) -> PathBuf {
        std::fs::canonicalize(self.dir.join("postgres")).expect("a place")
    }

    /// A folder that the server's account owns.
    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.place().join(name);
        run(as_owner(Path::new("mkdir")).arg(&folder));
        folder
    }

    fn url(&self) -> String {
        format!("postgres://tapeline:tapeline@127.0.0.1:{}/tapeline", self.port)
    }

    async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("database")
    }

    /// `tapeline backup …`; later settings come over earlier ones.
    fn command(&self, words: &[&str], settings: &[(&str, &str)]) -> Command {
        let place = self.place();
        let at = |name: &str| place.join(name).display().to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
        command
            .arg("backup")
            .args(words)
            .env("TAPELINE__DATABASE__URL", self.url())
            .env("TAPELINE__BACKUP__DATA", at("data"))
            .env("TAPELINE__BACKUP__SOCKET", place.display().to_string())
            .env("TAPELINE__BACKUP__PORT", self.port.to_string())
            .env("TAPELINE__BACKUP__FOLDER", at("b"))
            .env("TAPELINE__BACKUP__REPOSITORY__URL", format!("file://{}", at("one")))
            .env("TAPELINE__BACKUP__REPOSITORY__PASSPHRASE", PASSPHRASE)
            .env("TAPELINE__BACKUP__SECOND_REPOSITORY__URL", format!("file://{}", at("two")))
            .envs(settings.iter().copied());
        command
    }

    fn backup(&self, words: &[&str]) -> Output {
        run(&mut self.command(words, &[]))
    }

    /// The command must fail and say `what`, and no secret.
    fn refused(&self, words: &[&str], settings: &[(&str, &str)], what: &str) {
        let ended = self.command(words, settings).output().expect("runs");
        let said = said(&ended);
        assert!(!ended.status.success() && said.contains(what), "{words:?} {what}: {said}");
        for secret in [PASSPHRASE, "battery-staple"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.dir.join("postgres/full")).output();
        let mut services = Command::new(SERVICES);
        services.arg("purge").env("TAPELINE_SERVICES_DIR", &self.dir);
        let purged = services.env("TAPELINE_POSTGRES_PORT", self.port.to_string()).output();
        let _ = std::fs::remove_dir_all(&self.dir);
        drop(purged);
    }
}

async fn insert(database: &mut PgConnection, from: u32, to: u32) {
    let statement = format!(
        "insert into market_data_trades (time, exchange, symbol, trade_id, price, amount, side, receive_time,
            origin_partition, origin)
        select t, 'KRAKEN', 'S' || n % 7 || '-USD', n::text, n * 0.000000000000000001, 1, 'buy', t, 0, n
        from generate_series({from}, {to} - 1) n,
            lateral (select '2021-04-17T00:00:00Z'::timestamptz + n * interval '1 minute' t) x"
    );
    database.execute(statement.as_str()).await.expect("inserted");
}

/// Rows of the trades, and a sum over them.
async fn trades(database: &mut PgConnection) -> (i64, String) {
    let sum = "select count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from market_data_trades t";
    sqlx::query_as(sum).fetch_one(database).await.expect("a sum")
}

async fn text(database: &mut PgConnection, sql: &str) -> String {
    sqlx::query_scalar(sql).fetch_one(database).await.expect(sql)
}

/// Starts a server on restored files and reads the trades.
async fn restored_trades(cluster: &Cluster, data: &Path) -> (i64, String) {
    let major = text_of(as_owner(Path::new("cat")).arg(data.join("PG_VERSION")));
    let control = PathBuf::from(format!("/usr/lib/postgresql/{}/bin/pg_ctl", major.trim()));
    let port = free_port();
    let log = cluster.place().join("restored.log");
    let options = format!("-p {port} -c unix_socket_directories=''");
    let start = |action: &str| {
        let mut command = as_owner(&control);
        command.arg("-D").arg(data).args(["-w", "-m", "fast"]).arg(action);
        if action == "start" {
            command.arg("-o").arg(&options).arg("-l").arg(&log);
        }
        command.stdin(Stdio::null()).status().expect("pg_ctl")
    };
    assert!(start("start").success());
    let url = format!("postgres://tapeline:tapeline@127.0.0.1:{port}/tapeline");
    let mut restored = PgConnection::connect(&url).await.expect("the restored database");
    let found = trades(&mut restored).await;
    drop(restored);
    assert!(start("stop").success());
    found
}

fn text_of(command: &mut Command) -> String {
    String::from_utf8(run(command).stdout).expect("text")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long, needs pgBackRest: `make test-all`"]
async fn a_backup_restores_to_any_second_proves_itself_and_names_what_keeps_it_from_it_s4() {
    let cluster = tokio::task::block_in_place(Cluster::start);
    migrate::up(&cluster.url()).await.expect("migrations");
    let once = cluster.command(&["setup"], &[]).output().expect("runs");
    assert!(said(&once).contains("restart the server"), "{}", said(&once));
    cluster.restart();
    archived_by_another(&cluster);
    cluster.backup(&["setup"]);
    let secret = cluster.place().join("b/pgbackrest.conf");
    let mode = std::fs::metadata(&secret).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the file with the passphrase");

    let mut database = cluster.connect().await;
    insert(&mut database, 0, 1_000).await;
    let created = cluster.place().join("b/create.prom");
    let file = created.display().to_string();
    cluster.backup(&["create", "--full", "--metrics", &file]);
    let written = std::fs::read_to_string(&created).expect("metrics");
    assert!(
        written.contains("tapeline_backup_newest_time_seconds{repository=\"2\"} "),
        "{written}"
    );
    insert(&mut database, 1_000, 2_000).await;
    let wanted = trades(&mut database).await;
    // A whole second after the first rows, and before the others.
    let second = "select to_char(date_trunc('second', clock_timestamp()) + interval '1 second',
        'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')";
    let moment = text(&mut database, second).await;
    let later = format!("select (clock_timestamp() > '{moment}')::text");
    while text(&mut database, &later).await != "true" {
        tokio::task::yield_now().await;
    }
    insert(&mut database, 2_000, 3_000).await;
    cluster.backup(&["create", "--incremental"]);
    let listed: Vec<Value> =
        serde_json::from_slice(&cluster.backup(&["list", "--json"]).stdout).expect("json");
    let kinds = |repository: u64| {
        let of = listed.iter().filter(|backup| backup["repository"] == repository);
        of.map(|backup| backup["kind"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    assert_eq!((kinds(1), kinds(2)), (vec!["full", "incr"], vec!["full", "incr"]));

    for (repository, name) in [("1", "r1"), ("2", "r2")] {
        let into = cluster.place().join(name);
        let to = into.display().to_string();
        cluster.backup(&["restore", "--to", &moment, "--into", &to, "--repository", repository]);
        assert_eq!(restored_trades(&cluster, &into).await, wanted, "as of {moment}");
        cluster.refused(&["restore", "--latest", "--into", &to], &[], "is not empty");
    }

    without_the_first(&cluster, &moment, &wanted).await;

    // The restore test holds while rows keep coming and changing.
    let url = cluster.url();
    let writing = tokio::spawn(async move {
        let mut writer = PgConnection::connect(&url).await.expect("database");
        for batch in 30.. {
            insert(&mut writer, batch * 100, batch * 100 + 100).await;
            let update =
                format!("update market_data_trades set amount = {batch} where origin < 500");
            writer.execute(update.as_str()).await.expect("updated");
        }
    });
    let metrics = cluster.place().join("b/backup.prom");
    let file = metrics.display().to_string();
    let tested = watched(&cluster, &["verify", "--restore", "--json", "--metrics", &file]).await;
    writing.abort();
    let tested: Vec<Value> = serde_json::from_slice(&tested.stdout).expect("json");
    assert_eq!(tested.len(), 2);
    assert!(tested.iter().all(|test| test["rows"].as_i64() > Some(3_000)), "{tested:?}");
    let metrics = std::fs::read_to_string(&metrics).expect("metrics");
    for metric in ["restore_test_good{repository=\"2\"} 1", "age_seconds{repository=\"1\"} "] {
        assert!(metrics.contains(&format!("tapeline_backup_{metric}")), "{metrics}");
    }
    assert!(!metrics.contains("backup_newest"), "no metric is in both files: {metrics}");
    damaged(&cluster);
    misconfigured(&cluster);
    eventually("the writer ends", || async { writing.is_finished() }).await;
}

/// An `archive_command` of somebody else's is not taken away unasked.
fn archived_by_another(cluster: &Cluster) {
    let (place, port) = (cluster.place().display().to_string(), cluster.port.to_string());
    let mut psql = as_owner(Path::new("psql"));
    psql.args(["-X", "-h", &place, "-p", &port, "-U", "postgres", "-d", "postgres"]);
    psql.args(["-c", "alter system set archive_command = 'true # theirs'"]);
    run(psql.args(["-c", "select pg_reload_conf()"]));
    cluster.refused(&["setup"], &[], "true # theirs");
    cluster.backup(&["setup", "--replace"]);
}

/// The second repository restores where the first is gone, which is named; a restore test says that it failed.
async fn without_the_first(cluster: &Cluster, moment: &str, wanted: &(i64, String)) {
    let (first, away) = (cluster.place().join("one"), cluster.place().join("away"));
    std::fs::rename(&first, &away).expect("renamed");
    cluster.refused(&["list"], &[], "backup.repository.url");
    let file = cluster.place().join("b/failed.prom");
    let shown = file.display().to_string();
    let test = ["verify", "--restore", "--repository", "1", "--metrics", &shown];
    cluster.refused(&test, &[], "backup.repository.url");
    let metrics = std::fs::read_to_string(&file).expect("metrics");
    let bad = "tapeline_backup_restore_test_good{repository=\"1\"} 0";
    assert!(metrics.contains(bad), "{metrics}");
    let into = cluster.place().join("r3");
    let to = into.display().to_string();
    cluster.backup(&["restore", "--to", moment, "--into", &to, "--repository", "2"]);
    assert_eq!(&restored_trades(cluster, &into).await, wanted, "as of {moment}");
    std::fs::rename(&away, &first).expect("renamed");
}

/// Runs a restore test, whose instance nobody else can reach.
async fn watched(cluster: &Cluster, words: &[&str]) -> Output {
    let mut command = cluster.command(words, &[]);
    let mut testing =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let scratch = cluster.place().join("b/scratch");
    let own = scratch.join(format!("r{}", testing.id()));
    let places = [scratch, own.clone(), own.join(".s.PGSQL.5432")];
    let mut modes = [0; 3];
    while testing.try_wait().expect("a child").is_none() {
        for (place, mode) in places.iter().zip(&mut modes) {
            if let Ok(found) = std::fs::metadata(place) {
                *mode = found.permissions().mode() & 0o777;
            }
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let ended = testing.wait_with_output().expect("ended");
    assert!(ended.status.success(), "{words:?}: {}", said(&ended));
    assert_eq!(modes, [0o700; 3], "{places:?}");
    ended
}

/// What is damaged in a repository is found.
fn damaged(cluster: &Cluster) {
    let files = text_of(
        as_owner(Path::new("find"))
            .arg(cluster.place().join("two/backup"))
            .args(["-name", "*.zst", "-size", "+20k"]),
    );
    let file = files.lines().next().expect("a file");
    let mut bytes = std::fs::read(file).expect("readable");
    bytes[100] ^= 1;
    std::fs::write(file, &bytes).expect("written");
    cluster.refused(&["verify"], &[], "checksum invalid: 1");
    bytes[100] ^= 1;
    std::fs::write(file, &bytes).expect("written");
    cluster.backup(&["verify"]);
}

/// Wrong passphrases, repositories that are missing, forbidden or full.
fn misconfigured(cluster: &Cluster) {
    let wrong = [("TAPELINE__BACKUP__REPOSITORY__PASSPHRASE", "battery-staple")];
    let into = cluster.place().join("not").display().to_string();
    for words in
        [&["list"][..], &["verify"], &["create"], &["restore", "--latest", "--into", &into]]
    {
        cluster.refused(words, &wrong, "was another passphrase set");
    }
    let missing = format!("file://{}/three", cluster.place().display());
    let at = [("TAPELINE__BACKUP__SECOND_REPOSITORY__URL", missing.as_str())];
    cluster.refused(&["create"], &at, "backup.second_repository.url");
    let future = ["restore", "--to", "2999-01-01T00:00:00Z", "--into", &into];
    cluster.refused(&future, &[], "is in the future");
    let early = ["restore", "--to", "2001-01-01T00:00:00Z", "--into", &into, "--repository", "2"];
    cluster.refused(&early, &[], "unable to find backup set");
    if !is_root() {
        return;
    }
    let forbidden = cluster.dir.join("forbidden");
    std::fs::create_dir(&forbidden).expect("a folder");
    let url = format!("file://{}", forbidden.display());
    let at = [("TAPELINE__BACKUP__SECOND_REPOSITORY__URL", url.as_str())];
    cluster.refused(&["setup"], &at, "Permission denied");
    let full = cluster.folder("full");
    let mut mount = Command::new("mount");
    run(mount.args(["-t", "tmpfs", "-o", "size=3m,mode=777", "tmpfs"]).arg(&full));
    let url = format!("file://{}", full.display());
    let at = [("TAPELINE__BACKUP__SECOND_REPOSITORY__URL", url.as_str())];
    let ready = cluster.command(&["setup"], &at).output().expect("runs");
    if ready.status.success() {
        cluster.refused(&["create", "--full"], &at, "No space left");
    } else {
        assert!(said(&ready).contains("No space left"), "{}", said(&ready));
    }
}
