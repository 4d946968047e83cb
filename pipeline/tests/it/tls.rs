//! TLS to every service, and SCRAM users for Kafka: what is not proved is refused by name (O7).

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use sqlx::{Connection, Executor, PgConnection};
use tapeline::config::Config;
use tapeline::kafka::create_topics;
use tapeline::registry::{self, RegistryOptions};
use tapeline::wiring::{Context, StageName, run_stage};
use tapeline_schemas::{Kind, encode};
use tokio_util::sync::CancellationToken;

use crate::common::{Process, env, eventually};
use crate::look::trade;

const START: i64 = 1_700_000_000_000_000;

/// Services of this test's own, made by `scripts/services up --tls`.
struct Services {
    dir: PathBuf,
    ports: Vec<(&'static str, String)>,
}

impl Services {
    fn up() -> Services {
        let dir = std::env::temp_dir().join(format!("tapeline_tls_{}", std::process::id()));
        let held = ["KAFKA", "KAFKA_CONTROLLER", "POSTGRES", "REDIS", "REGISTRY"]
            .map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let names = [
            "TAPELINE_KAFKA_PORT",
            "TAPELINE_KAFKA_CONTROLLER_PORT",
            "TAPELINE_POSTGRES_PORT",
            "TAPELINE_REDIS_PORT",
            "TAPELINE_REGISTRY_PORT",
        ];
        let port = |held: &TcpListener| held.local_addr().expect("an address").port().to_string();
        let ports = names.into_iter().zip(held.iter().map(port)).collect();
        drop(held);
        let services = Services { dir, ports };
        services.script(&["up", "--tls", "kafka", "postgres", "redis"]);
        services
    }

    fn script(&self, args: &[&str]) -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/services");
        let mut command = Command::new(script);
        command.args(args).env("TAPELINE_SERVICES_DIR", &self.dir).envs(self.ports.iter().cloned());
        let output = command.output().expect("the script runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).to_str().expect("a path").to_owned()
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).expect(name).trim().to_owned()
    }

    /// As `eval "$(scripts/services env)"` sets it.
    fn config(&self) -> Config {
        let text = self.script(&["env"]);
        let variable = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        let mut config =
            Config::load_with(None, text.lines().filter_map(variable)).expect("allowed");
        config.kafka.partitions = Some(2);
        config.http.listen = None;
        config
    }

    /// The certificate of a CA that signed none of the services'.
    fn other_ca(&self) -> String {
        let (path, key) = (self.file("other.pem"), self.file("other.key"));
        let mut args = vec!["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
        args.extend(["-nodes", "-subj", "/CN=Other", "-keyout", &key, "-out", &path]);
        openssl(&args);
        path
    }

    /// A certificate of `ca` for `service`'s key that has expired.
    fn expired(&self, service: &str) -> String {
        let path = self.file(&format!("{service}.expired.crt"));
        let [key, ca, ca_key] =
            [format!("tls/{service}.key"), "tls/ca.pem".into(), "tls/ca.key".into()]
                .map(|name: String| self.file(&name));
        let request = self.file("expired.csr");
        openssl(&["req", "-new", "-key", &key, "-subj", "/CN=x", "-out", &request]);
        let extension = self.file("san");
        std::fs::write(&extension, "subjectAltName=IP:127.0.0.1\n").expect("written");
        openssl(&[
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-set_serial",
            "7",
            "-days",
            "-1",
            "-extfile",
            &extension,
            "-out",
            &path,
        ]);
        path
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        self.script(&["purge"]);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn openssl(args: &[&str]) {
    let output = Command::new("openssl").args(args).output().expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What `tapeline check --deps` says of a service.
fn said(services: &Services, config: &Config, service: &str) -> String {
    let path = services.file("check.json");
    std::fs::write(&path, serde_json::to_string(config).expect("config")).expect("written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapeline"));
    for name in ["DATABASE__URL", "REDIS__URL", "REGISTRY__URL", "KAFKA__BROKERS"] {
        command.env_remove(format!("TAPELINE__{name}"));
    }
    let args = ["--config", &path, "check", "--deps"];
    let output = command.args(args).output().expect("the binary runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let start = format!("{service}: ");
    let line = text.lines().find_map(|line| line.strip_prefix(&start));
    line.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).to_owned()
}

/// Every service refuses what `change` makes, and says each of these of it.
fn refused(services: &Services, change: impl FnOnce(&mut Config), expected: [(&str, &str); 3]) {
    let mut config = services.config();
    change(&mut config);
    for (service, text) in expected {
        let line = said(services, &config, service);
        assert!(line.contains(text), "{service}, expected `{text}`: {line}");
        assert!(
            !line.ends_with(" topics")
                && !line.starts_with("migrated")
                && !line.starts_with("answers"),
            "{line}"
        );
    }
}

fn replace(text: &mut String, from: &str, to: &str) {
    assert!(text.contains(from), "{from} in {text}");
    *text = text.replace(from, to);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "services of its own: `make test-all`"]
async fn the_pipeline_runs_over_tls_and_scram_and_whatever_is_not_proved_is_refused_by_name_o7() {
    let services = Services::up();
    runs_with_a_user_for_each_stage(&services).await;
    let all = ["kafka", "database", "redis"];

    let other = services.other_ca();
    let ca = services.file("tls/ca.pem");
    let other_ca = |config: &mut Config| {
        config.kafka.properties.insert("ssl.ca.location".to_owned(), other.clone());
        replace(&mut config.database.url, &ca, &other);
        config.redis.ca_file = Some(other.clone());
    };
    refused(&services, other_ca, all.map(|service| (service, "not trusted")));

    let other_name = |config: &mut Config| {
        replace(&mut config.kafka.brokers, "127.0.0.1", "localhost");
        replace(&mut config.database.url, "127.0.0.1", "localhost");
        replace(&mut config.redis.url, "127.0.0.1", "localhost");
    };
    refused(&services, other_name, all.map(|service| (service, "for another host name")));

    // Servers that speak plain text only: the ones of all other tests.
    let plain = |config: &mut Config| {
        config.kafka.brokers = env("TAPELINE__KAFKA__BROKERS", "127.0.0.1:19092");
        let url =
            env("TAPELINE__DATABASE__URL", "postgres://tapeline:tapeline@127.0.0.1:15432/tapeline");
        config.database.url = format!("{url}?sslmode=verify-full&sslrootcert={ca}");
        let url = env("TAPELINE__REDIS__URL", "redis://127.0.0.1:16379/0");
        config.redis.url = url.replace("redis://", "rediss://");
    };
    refused(&services, plain, all.map(|service| (service, "does not speak TLS")));

    // And the other way round: none of these services listens to plain text.
    let in_plain_text = |config: &mut Config| {
        config.kafka.properties.clear();
        replace(&mut config.database.url, "sslmode=verify-full", "sslmode=disable");
        replace(&mut config.redis.url, "rediss://", "redis://");
        config.redis.ca_file = None;
    };
    refused(
        &services,
        in_plain_text,
        [("kafka", "it may want TLS"), ("database", "no encryption"), ("redis", "it may want TLS")],
    );

    let wrong_login = |config: &mut Config| {
        config.kafka.properties.insert("sasl.password".to_owned(), "hunter2".to_owned());
    };
    let mut config = services.config();
    wrong_login(&mut config);
    let line = said(&services, &config, "kafka");
    assert!(line.contains("check sasl.username") && !line.contains("hunter2"), "{line}");

    expired_certificates_are_refused(&services).await;
}

async fn expired_certificates_are_refused(services: &Services) {
    let config = services.config();
    let client = config.redis.client().expect("a client");
    let mut redis = client.get_multiplexed_async_connection().await.expect("redis");
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("tls-cert-file").arg(services.expired("redis"));
    let _: () = set.query_async(&mut redis).await.expect("set");

    let login = services.text("postgres/pgpass");
    let (_, password) = login.rsplit_once(':').expect("a password");
    let mut url = config.database.url.clone();
    replace(&mut url, "tapeline:tapeline@", &format!("postgres:{password}@"));
    let mut database = PgConnection::connect(&url).await.expect("database");
    let set = format!("alter system set ssl_cert_file = '{}'", services.expired("postgres"));
    database.execute(set.as_str()).await.expect("set");
    database.execute("select pg_reload_conf()").await.expect("reloaded");

    // A broker takes a new certificate only after a restart: its handshake is OpenSSL's here.
    let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let (certificate, key) = (services.expired("kafka"), services.file("tls/kafka.key"));
    let mut server = Command::new("openssl");
    server.args(["s_server", "-quiet", "-accept", &port.to_string(), "-cert", &certificate]);
    server.args(["-key", &key]).stdin(Stdio::piped()).stdout(Stdio::null());
    let _server = Process(server.spawn().expect("openssl runs"));

    let mut config = services.config();
    config.kafka.brokers = port.to_string();
    for service in ["kafka", "database", "redis"] {
        eventually("the expired certificate is refused", || async {
            said(services, &config, service).contains("has expired")
        })
        .await;
    }
}

/// The configuration with the Kafka user of this name.
fn with_user(services: &Services, config: &Config, user: &str) -> Config {
    let mut config = config.clone();
    let password = services.text(&format!("tls/kafka-users/{user}"));
    config.kafka.properties.insert("sasl.username".to_owned(), user.to_owned());
    config.kafka.properties.insert("sasl.password".to_owned(), password);
    config
}

async fn runs_with_a_user_for_each_stage(services: &Services) {
    let stop = CancellationToken::new();
    let _stops = stop.clone().drop_guard();
    let mut config = services.config();
    let options = RegistryOptions {
        brokers: config.kafka.brokers.clone(),
        properties: with_user(services, &config, "registry").kafka.properties,
        listen: "127.0.0.1:0".to_owned(),
        topic: "_schemas".to_owned(),
        replication: 1,
    };
    let registry = registry::start(options, stop.clone()).await.expect("registry");
    config.registry.url = Some(registry.url());
    create_topics(&config.kafka).await.expect("topics");
    tapeline::migrate::up(&config.database.url).await.expect("migrations");
    let line = said(services, &config, "kafka");
    assert!(line.ends_with(" topics"), "{line}");
    assert!(said(services, &config, "database").starts_with("migrated"));
    assert_eq!(said(services, &config, "redis"), "answers PONG");

    let mut running = Vec::new();
    for stage in StageName::WHOLE {
        let config = with_user(services, &config, stage.name());
        let context = Context::new(config, &stop).await.expect("context");
        let token = stop.clone();
        running.push(tokio::spawn(async move { run_stage(stage, &context, token).await }));
    }
    let connect = with_user(services, &config, "connect");
    let connect = Context::new(connect, &stop).await.expect("context");
    let publisher = connect.publisher().expect("publisher");
    for id in 0..300 {
        let trade = trade("TEST", "BTC-USD", id, "1.5", START + id * 1_000_000);
        publisher.event(Kind::Trade, "TEST:BTC-USD", &encode(&trade)).await.expect("published");
    }
    publisher.delivered().await.expect("delivered");
    let mut database = PgConnection::connect(&config.database.url).await.expect("database");
    let encrypted: bool =
        sqlx::query_scalar("select ssl from pg_stat_ssl where pid = pg_backend_pid()")
            .fetch_one(&mut database)
            .await
            .expect("an answer");
    assert!(encrypted);
    eventually("the trades are stored", || async {
        let mut database = PgConnection::connect(&config.database.url).await.expect("database");
        let sql = "select count(*) from market_data_trades";
        sqlx::query_scalar::<_, i64>(sql).fetch_one(&mut database).await.expect("a count") == 300
    })
    .await;
    let client = config.redis.client().expect("a client");
    let redis = client.get_multiplexed_async_connection().await.expect("redis");
    eventually("a candle is in redis", || {
        let mut redis = redis.clone();
        async move {
            let keys: Vec<String> = redis::cmd("KEYS")
                .arg("market_data:candle:TEST:*")
                .query_async(&mut redis)
                .await
                .expect("keys");
            !keys.is_empty()
        }
    })
    .await;
    stop.cancel();
    for stage in running {
        stage.await.expect("joins").expect("the stage ends well");
    }
}
