//! Driver against playbacks that lose, double, reorder, spoil, cut and refuse: books end as in a run without faults
//! wherever the venue gives something to tell by, and each hole is recorded.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use tapeline::playback::{self, Deed, Handle, Injected, Join, Options, Recording, Speed};
use tapeline::venue::driver::{self, PlaybackClock, VenueConfig};
use tapeline::venue::{StatsReport, SymbolTable, VenueStats, venue};
use tapeline_schemas::{Book, BookAction, Control, GapChange, GapState, Kind, Level, Micros};
use tapeline_stages::book::OrderBook;
use tokio_util::sync::CancellationToken;

use crate::common::{Collector, Published, VENUES, books, recordings};

/// One venue's run.
struct Played {
    venue: &'static str,
    stats: StatsReport,
    published: Vec<Published>,
}

async fn serve(dir: &Path, options: Options) -> Handle {
    playback::serve(dir, &VENUES, "127.0.0.1:0".parse().unwrap(), options).await.unwrap()
}

async fn play(dir: &Path, server: &Handle, name: &'static str) -> Played {
    let settings = Recording::read(dir, name).unwrap().settings();
    let (rest, ws) = (server.rest_url(name), server.ws_url(name));
    let config = VenueConfig::playback(name, settings, rest, ws).unwrap();
    let collector = Collector::default();
    let (publisher, stats) = (Arc::new(collector.clone()), Arc::new(VenueStats::default()));
    let (clock, cancel) = (Arc::new(PlaybackClock), CancellationToken::new());
    let stats = driver::run(config, publisher, clock, stats, cancel).await.unwrap();
    Played { venue: name, stats, published: collector.take() }
}

/// All venues at once.
async fn play_all(dir: &Path, options: Options) -> (Vec<Played>, Vec<Injected>) {
    let server = serve(dir, options).await;
    let runs = VENUES.map(|name| play(dir, &server, name));
    let played = futures_util::future::join_all(runs).await;
    let injected = server.injected().first();
    assert_eq!(injected.len() as u64, server.injected().count());
    server.shutdown().await;
    (played, injected)
}

/// How many of the best levels a venue's sequence or checksum vouches for; none where it gives neither.
fn vouched(venue: &str) -> Option<usize> {
    match venue {
        "BINANCE" | "DERIBIT" => Some(usize::MAX),
        "KRAKEN" => Some(10),
        "OKX" => Some(25),
        // Every message is a whole book, and an older one is left out.
        "UPBIT" => Some(usize::MAX),
        _ => None,
    }
}

type Sides = (Vec<Level>, Vec<Level>);

fn best((bids, asks): &Sides, levels: usize) -> Sides {
    let cut = |side: &[Level]| side.iter().take(levels).copied().collect();
    (cut(bids), cut(asks))
}

/// The last word on each book.
fn last_tops(played: &Played, levels: usize) -> BTreeMap<String, Sides> {
    let tops = books(&played.published, BookAction::Top).into_iter();
    tops.map(|b| (b.symbol.to_string(), best(&(b.bids.clone(), b.asks.clone()), levels))).collect()
}

/// Every state that each book was in, by its best levels.
fn states(played: &Played, levels: usize) -> BTreeMap<String, HashSet<String>> {
    let mut kept: BTreeMap<String, (OrderBook, HashSet<String>)> = BTreeMap::new();
    for one in &played.published {
        let Published::Book(book) = one else { continue };
        let (levels_of, seen) = kept.entry(book.symbol.to_string()).or_default();
        match book.action {
            BookAction::Snapshot => levels_of.apply_snapshot(&book.bids, &book.asks),
            BookAction::Delta => levels_of.apply_delta(&book.bids, &book.asks),
            BookAction::Top => continue,
        }
        seen.insert(format!("{:?}", levels_of.top(levels)));
    }
    kept.into_iter().map(|(symbol, (_, seen))| (symbol, seen)).collect()
}

/// Holes of a kind by symbol: from and to.
fn holes(played: &Played, kind: Kind) -> BTreeMap<String, Vec<(Micros, Micros)>> {
    let mut open: BTreeMap<String, Vec<GapChange>> = BTreeMap::new();
    let mut out: BTreeMap<String, Vec<(Micros, Micros)>> = BTreeMap::new();
    for one in &played.published {
        let Published::Control(of, Control::Gap(gap)) = one else { continue };
        if *of != kind {
            continue;
        }
        let symbol = gap.symbol.clone();
        match gap.state {
            GapState::Opened => open.entry(symbol).or_default().push(gap.clone()),
            _ => {
                let opened = open.get_mut(&symbol).and_then(Vec::pop).expect("opened before");
                assert_eq!(opened.from, gap.from);
                out.entry(symbol).or_default().push((gap.from, gap.to.unwrap()));
            }
        }
    }
    for (symbol, gaps) in open {
        let endless = gaps.into_iter().map(|gap| (gap.from, Micros(i64::MAX)));
        out.entry(symbol).or_default().extend(endless);
    }
    out
}

/// The venue's names of the symbols, in small letters, with ours.
fn natives(dir: &Path, name: &str) -> Vec<(String, String)> {
    let recording = Recording::read(dir, name).unwrap();
    let settings = recording.settings();
    let connector = (venue(name).unwrap().connector)(settings.clone());
    let mut table = SymbolTable::new();
    for request in connector.symbols_requests() {
        let answer = recording.answers.iter().find(|a| a.path == request).unwrap();
        connector.decode_symbols(&request, answer.body.as_bytes(), &mut table).unwrap();
    }
    let code =
        |symbol: &String| table.find(venue(name).unwrap().name, symbol).unwrap().code.clone();
    settings.symbols.iter().map(|s| (code(s).to_ascii_lowercase(), s.clone())).collect()
}

fn assert_books_end_alike(clean: &Played, faulty: &Played, seed: u64) {
    let Some(levels) = vouched(clean.venue) else { return };
    let (expected, found) = (last_tops(clean, levels), last_tops(faulty, levels));
    assert_eq!(expected, found, "{} with seed {seed}", clean.venue);
}

/// What is published of a book is always one of the states that it was in: right or absent (invariant 9).
fn assert_books_are_right_or_absent(clean: &Played, faulty: &Played, seed: u64) {
    let Some(levels) = vouched(clean.venue).map(|levels| levels.min(10)) else { return };
    let right = states(clean, levels);
    for (symbol, seen) in states(faulty, levels) {
        let wrong: Vec<_> = seen.difference(&right[&symbol]).collect();
        assert!(wrong.is_empty(), "{} {symbol} with seed {seed}: {wrong:?}", clean.venue);
    }
}

/// A lost change of a book whose venue numbers them lies within a recorded hole, or in what a snapshot held.
fn assert_lost_changes_are_holes(dir: &Path, faulty: &Played, injected: &[Injected], seed: u64) {
    if !matches!(faulty.venue, "BINANCE" | "DERIBIT") {
        return;
    }
    let (holes, natives) = (holes(faulty, Kind::Book), natives(dir, faulty.venue));
    let mut first: BTreeMap<&str, Micros> = BTreeMap::new();
    for snapshot in books(&faulty.published, BookAction::Snapshot) {
        first.entry(snapshot.symbol.as_ref()).or_insert(snapshot.receive_time);
    }
    let lost = injected.iter().filter(|i| i.venue == faulty.venue && i.deed == Deed::Drop);
    for lost in
        lost.filter(|i| i.channels.iter().any(|c| c.contains("@depth") || c.starts_with("book.")))
    {
        let channel = lost.channels[0].to_ascii_lowercase();
        let (_, symbol) = natives.iter().find(|(native, _)| channel.contains(native)).unwrap();
        if first.get(symbol.as_str()).is_none_or(|first| lost.time <= *first) {
            continue;
        }
        let covered = holes.get(symbol).into_iter().flatten();
        let covered = covered.filter(|(from, to)| *from <= lost.time && lost.time <= *to).count();
        assert!(covered > 0, "{lost:?} with seed {seed}: {:?}", holes.get(symbol));
    }
}

/// Where trades are numbered one by one, each that did not come lies within a recorded hole.
fn assert_lost_trades_are_holes(clean: &Played, faulty: &Played, seed: u64) {
    if !matches!(clean.venue, "BINANCE" | "COINBASE" | "DERIBIT" | "OKX") {
        return;
    }
    let holes = holes(faulty, Kind::Trade);
    let trades = |played: &Played| -> Vec<(String, String, Micros)> {
        let trades = played.published.iter().filter_map(|one| match one {
            Published::Trade(t) => {
                Some((t.symbol.to_string(), t.trade_id.to_string(), t.receive_time))
            }
            _ => None,
        });
        trades.collect()
    };
    let got = trades(faulty);
    let ids: BTreeSet<_> = got.iter().map(|(symbol, id, _)| (symbol, id)).collect();
    for (symbol, id, time) in &trades(clean) {
        let began = got.iter().find(|(of, _, _)| of == symbol).map(|(_, _, time)| *time);
        // What was lost before anything came, nothing tells.
        if ids.contains(&(symbol, id)) || began.is_none_or(|began| *time < began) {
            continue;
        }
        let mut covering = holes.get(symbol).into_iter().flatten();
        let covered = covering.any(|(from, to)| from <= time && time <= to);
        assert!(covered, "{} {symbol} {id} with seed {seed}: {:?}", clean.venue, holes.get(symbol));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_one_percent_of_frames_lost_doubled_and_reordered_books_end_right_and_holes_are_recorded_s9()
 {
    let Some(dir) = recordings() else { return };
    let (clean, _) = play_all(&dir, Speed::Max.into()).await;
    let faults = Some("drop=1,duplicate=1,reorder=1".parse().unwrap());
    for seed in 1..=3 {
        let (speed, join) = (Speed::Times(20.0), Join::Beginning);
        let (faulty, injected) =
            play_all(&dir, Options { speed, join, faults, seed, laps: 1 }).await;
        assert!(injected.len() > 100, "{}", injected.len());
        for (clean, faulty) in clean.iter().zip(&faulty) {
            assert_eq!(faulty.stats.disconnects, 0, "{}", faulty.venue);
            assert_books_end_alike(clean, faulty, seed);
            assert_books_are_right_or_absent(clean, faulty, seed);
            assert_lost_changes_are_holes(&dir, faulty, &injected, seed);
            assert_lost_trades_are_holes(clean, faulty, seed);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_cut_connections_wrong_checksums_and_refused_requests_books_are_right_again_s9() {
    let Some(dir) = recordings() else { return };
    let (clean, _) = play_all(&dir, Speed::Max.into()).await;
    let faults =
        "cut=0.2,stall=0.05,stall-ms=300,checksum=1,http-429=20,http-5xx=20,slow-snapshot-ms=100";
    let faults = Some(faults.parse().unwrap());
    let options = Options { speed: Speed::Times(10.0), join: Join::Now, faults, seed: 4, laps: 1 };
    let (faulty, injected) = play_all(&dir, options).await;
    for deed in [Deed::Cut, Deed::Checksum] {
        assert!(injected.iter().any(|injected| injected.deed == deed), "{deed:?}");
    }
    for (clean, faulty) in clean.iter().zip(&faulty) {
        let of_venue = injected.iter().filter(|injected| injected.venue == faulty.venue);
        let cuts = of_venue.filter(|injected| injected.deed == Deed::Cut).count() as u64;
        assert!(faulty.stats.disconnects >= cuts, "{}", faulty.venue);
        assert_books_end_alike(clean, faulty, 4);
        assert_books_are_right_or_absent(clean, faulty, 4);
        assert_lost_trades_are_holes(clean, faulty, 4);
        assert_every_disconnect_is_a_hole(faulty);
    }
}

fn assert_every_disconnect_is_a_hole(played: &Played) {
    let opened = played.published.iter().filter(|one| match one {
        Published::Control(_, Control::Gap(gap)) => {
            gap.state == GapState::Opened && gap.cause == "disconnect"
        }
        _ => false,
    });
    // Where nothing had come yet, nothing was covered either.
    if played.stats.disconnects > 1 {
        assert!(opened.count() > 0, "{}", played.venue);
    }
}

/// Who subscribes in the middle of the one tape gets the books as they are and keeps them right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_joins_in_the_middle_has_the_same_books_at_the_end() {
    let Some(dir) = recordings() else { return };
    let (clean, _) = play_all(&dir, Speed::Max.into()).await;
    let join = Join::Now;
    let server = serve(&dir, Options { join, ..Speed::Times(10.0).into() }).await;
    let half = |book: &Book<'_>| book.action == BookAction::Delta;
    for clean in &clean {
        let (first, second) = tokio::join!(play(&dir, &server, clean.venue), async {
            tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            play(&dir, &server, clean.venue).await
        });
        let levels = vouched(clean.venue).unwrap_or(usize::MAX);
        // Without a choice of depth the venue's whole book is what it said of it.
        assert_eq!(last_tops(clean, levels), last_tops(&first, levels), "{}", clean.venue);
        assert_eq!(last_tops(clean, levels), last_tops(&second, levels), "{}", clean.venue);
        let deltas = |played: &Played| {
            let of = |one: &&Published| matches!(one, Published::Book(book) if half(book));
            played.published.iter().filter(of).count()
        };
        assert!(deltas(&second) <= deltas(&first), "{}", clean.venue);
        assert_eq!(second.stats.books.resyncs, 0, "{}", clean.venue);
        assert_eq!(second.stats.books.checksums_failed, 0, "{}", clean.venue);
    }
    server.shutdown().await;
}
