//! C6: any Kafka client can push. Here it is Python's.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde::Deserialize;
use tapeline::wiring::StageName;
use tapeline_schemas::Kind;

use crate::common::Pipeline;
use crate::look;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/python");
const GENERATED: usize = 500;
/// Rows that a float, a number of 28 digits or a careless exponent would spoil.
const CSV: &str = "exchange,symbol,trade_id,price,amount,side,venue_time,type,sequence,receive_time
FILE,BTC-USD,1,30000.123456789012345678,0.000000000000000001,buy,1618617600000001,limit,1,1618617600000501
FILE,BTC-USD,2,99999999999999999999.999999999999999999,1e-18,sell,1618617600000002,,,
FILE,ETH-USD,3,0.1,1.10,unknown,1618617600000003,market,9007199254740993,1618617600000503
FILE,XRP-KRW,a-4,1E+3,100000,buy,1618617600000004,,,
";

/// What the script says it sent.
#[derive(Deserialize)]
struct Summary {
    sent: usize,
    delivered: usize,
    failed: usize,
    trades: Vec<Sent>,
}

#[derive(Deserialize)]
struct Sent {
    exchange: String,
    symbol: String,
    trade_id: String,
    price: String,
    amount: String,
    side: String,
    #[serde(rename = "type")]
    kind: Option<String>,
    sequence: Option<i64>,
    venue_time: i64,
    receive_time: i64,
}

pub(crate) fn run(command: &mut Command, what: &str) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// An interpreter with the pinned `requirements`, called `name`; made once for each list of them.
pub(crate) fn interpreter(name: &str, requirements: &Path) -> PathBuf {
    let pinned = std::fs::read_to_string(requirements).expect("requirements");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let (python, done) = (venv.join("bin/python"), venv.join("installed.txt"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pinned) {
        return python;
    }
    let make = "python3 -m venv (needs python3 and python3-venv: apt-get install python3-venv)";
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv), make);
    let install = format!("pip install -r {} (needs PyPI or a mirror)", requirements.display());
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    run(Command::new(&python).args(pip).arg(requirements), &install);
    // Nothing that the list forgot to pin was drawn in.
    let frozen = run(Command::new(&python).args(["-m", "pip", "freeze"]), "pip freeze");
    let names = |text: &str| {
        let lines = text.lines().filter(|line| line.contains("=="));
        let name = |line: &str| line.replace("[avro,schemaregistry]", "").to_lowercase();
        let mut names: Vec<_> = lines.map(name).map(|name| name.replace('_', "-")).collect();
        names.sort();
        names
    };
    assert_eq!(names(&String::from_utf8_lossy(&frozen.stdout)), names(&pinned));
    std::fs::write(&done, pinned).expect("written");
    python
}

/// Runs the example as its documentation says, and returns what it sent.
fn produce(pipeline: &Pipeline, more: &[&str]) -> Summary {
    let config = &pipeline.context.config;
    let registry = config.registry.url.as_deref().expect("a registry");
    let mut command =
        Command::new(interpreter("venv-python", &Path::new(EXAMPLE).join("requirements.txt")));
    command.arg(Path::new(EXAMPLE).join("produce.py"));
    command.args(["--brokers", &config.kafka.brokers, "--registry", registry]);
    command.args(["--topic", &look::raw_topic(pipeline, Kind::Trade)]).args(more);
    let output = run(&mut command, "examples/python/produce.py");
    let text = String::from_utf8(output.stdout).expect("utf-8");
    let summary = text.lines().last().expect("a last line");
    serde_json::from_str(summary).unwrap_or_else(|error| panic!("{error}: {summary}"))
}

impl Sent {
    fn row(&self) -> Vec<String> {
        let or_null = |text: Option<String>| text.unwrap_or_else(|| "null".to_owned());
        vec![
            self.exchange.clone(),
            self.symbol.clone(),
            self.trade_id.clone(),
            self.price.clone(),
            self.amount.clone(),
            self.side.clone(),
            or_null(self.kind.clone()),
            or_null(self.sequence.map(|sequence| sequence.to_string())),
            self.venue_time.to_string(),
            self.receive_time.to_string(),
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_python_client_pushes_is_stored_digit_for_digit_c6() {
    let pipeline = Pipeline::new("python").await;
    let (validate, store) = (pipeline.start(StageName::Validate), pipeline.start(StageName::Store));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("trades.csv");
    std::fs::write(&file, CSV).expect("written");
    let count = GENERATED.to_string();
    let runs = tokio::task::block_in_place(|| {
        let generated = produce(&pipeline, &["--count", &count, "--exchange", "PYTHON"]);
        // The second writer registers nothing: it takes the schema that is there.
        let csv = file.to_str().expect("utf-8");
        [generated, produce(&pipeline, &["--csv", csv, "--use-latest"])]
    });
    let mut expected = Vec::new();
    for (summary, sent) in runs.iter().zip([GENERATED, 4]) {
        assert_eq!((summary.sent, summary.delivered, summary.failed), (sent, sent, 0));
        expected.extend(summary.trades.iter().map(Sent::row));
    }
    expected.sort();
    let audit = look::all_accounted(&pipeline, expected.len() as i64).await;
    assert_eq!(audit.outcomes["stored"], expected.len() as i64, "{audit:?}");
    let sql = "select exchange, symbol, trade_id, price::text, amount::text, side, type, \
        sequence::text, (extract(epoch from time) * 1000000)::bigint::text as time, \
        (extract(epoch from receive_time) * 1000000)::bigint::text as receive_time \
        from market_data_trades";
    let mut stored = look::rows(&pipeline, sql).await;
    stored.sort();
    assert_eq!(stored, expected);
    // The summary itself is held against what was typed.
    let typed = |id: &str| stored.iter().find(|row| row[2] == id).map(|row| row[3..5].to_vec());
    let digits = ["99999999999999999999.999999999999999999", "0.000000000000000001"];
    assert_eq!(typed("2"), Some(digits.map(str::to_owned).to_vec()));
    assert_eq!(typed("a-4"), Some(["1000", "100000"].map(str::to_owned).to_vec()));
    validate.stop().await;
    store.stop().await;
    pipeline.finish().await;
}
