use std::path::Path;

use super::*;
use crate::playback::Recording;
use crate::playback::recording::{Lines, files};

const MIB: u64 = 1024 * 1024;

/// A directory of a test's own, empty.
fn directory(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("tapeline-record-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn limits(dir: &Path, file_bytes: u64, max_bytes: u64) -> Limits {
    let max_age = Duration::from_secs(3_600);
    Limits { dir: dir.to_owned(), file_bytes, max_bytes, max_age }
}

fn url() -> String {
    "wss://ws.kraken.com/x?y=1".to_owned()
}

/// Text that hardly compresses.
fn noise(seed: u64) -> Bytes {
    let words = (0..512_u64).map(|n| xxhash_rust::xxh3::xxh3_64(&(seed * 1_000 + n).to_le_bytes()));
    words.map(|word| format!("{word:016x}")).collect::<String>().into()
}

fn fill(recorder: &Recorder, frames: u64) {
    recorder.table("https://api.kraken.com/t".into(), Micros(1), Bytes::from_static(b"{}"));
    recorder.configuration("{\"trades\":[\"A-B\"]}".into());
    recorder.opened(0, url(), Micros(2), vec!["subscribe".into()]);
    recorder.opened(1, url(), Micros(3), Vec::new());
    for number in 0..frames {
        let connection = usize::try_from(number % 2).expect("small");
        let time = Micros(1_000_000 + i64::try_from(number).expect("small"));
        recorder.frame(connection, time, noise(number));
    }
}

#[tokio::test]
async fn what_was_kept_is_read_as_a_recording_across_files_and_without_doubles() {
    let dir = directory("roll");
    let recorder = Recorder::start("KRAKEN", Micros(77), limits(&dir, 64 * 1024, 1_000 * MIB));
    fill(&recorder, 200);
    assert_eq!(recorder.missing(), 0);
    recorder.close().await;
    let kept = files(&dir, "KRAKEN").expect("files");
    assert!(kept.len() > 3, "{kept:?}");
    let recording = Recording::read(&dir, "kraken").expect("a recording");
    assert_eq!(recording.configuration["trades"][0], "A-B");
    assert_eq!(recording.answers.len(), 1);
    assert_eq!(recording.connections.len(), 2, "a connection goes on across files");
    assert_eq!(recording.connections[0].path, "/x?y=1");
    let frames: Vec<_> = recording.connections.iter().map(|c| c.frames.len()).collect();
    assert_eq!(frames, [100, 100]);
    for (number, frame) in recording.connections[1].frames.iter().enumerate() {
        assert_eq!(frame.payload.as_bytes(), &noise(2 * number as u64 + 1)[..]);
    }
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[tokio::test]
async fn a_file_that_a_crash_tore_off_is_read_up_to_there() {
    let dir = directory("torn");
    let recorder = Recorder::start("KRAKEN", Micros(77), limits(&dir, 100 * MIB, 1_000 * MIB));
    fill(&recorder, 50);
    recorder.close().await;
    let path = files(&dir, "KRAKEN").expect("files").pop().expect("a file");
    let whole = std::fs::read(&path).expect("read");
    std::fs::write(&path, &whole[..whole.len() * 2 / 3]).expect("torn");
    let recording = Recording::read(&dir, "kraken").expect("a recording");
    let frames: usize = recording.connections.iter().map(|c| c.frames.len()).sum();
    assert!((10..50).contains(&frames), "{frames}");
    assert!(Lines::open(&path).expect("opens").all(|line| line.is_ok()));
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[tokio::test]
async fn the_oldest_files_go_and_tables_with_the_last_of_their_run() {
    let dir = directory("retention");
    for run in 1..=3 {
        let limits = limits(&dir, 32 * 1024, 256 * 1024);
        let recorder = Recorder::start("KRAKEN", Micros(run), limits);
        fill(&recorder, 60);
        recorder.close().await;
    }
    let kept = files(&dir, "KRAKEN").expect("files");
    let bytes: u64 = kept.iter().map(|path| path.metadata().expect("there").len()).sum();
    // What is being written comes on top.
    assert!(bytes <= (256 + 2 * 32 + 16) * 1024, "{bytes}");
    let runs = |run: u64| {
        kept.iter().filter(move |path| path.to_string_lossy().contains(&format!("KRAKEN.{run}.")))
    };
    assert_eq!(runs(1).count(), 0, "{kept:?}");
    assert!(runs(3).count() > 1);
    assert!(Recording::read(&dir, "kraken").is_ok(), "what is left can be read");
    std::fs::remove_dir_all(&dir).expect("removed");
}

/// A directory that cannot be made stands for a disk that takes nothing: giving frames never waits and never fails.
#[tokio::test]
async fn a_disk_that_takes_nothing_costs_frames_that_are_counted_and_no_time() {
    let dir = directory("full");
    std::fs::write(&dir, "a file where the directory would be").expect("written");
    let recorder = Recorder::start("KRAKEN", Micros(1), limits(&dir, MIB, MIB));
    let frames = (QUEUE * 2) as u64;
    fill(&recorder, 0);
    for _ in 0..frames {
        recorder.frame(0, Micros(5), Bytes::from_static(b"x"));
    }
    let shared = Arc::clone(&recorder.shared);
    recorder.close().await;
    assert_eq!(shared.missing.load(Ordering::Relaxed), frames);
    std::fs::remove_file(&dir).expect("removed");
}

/// The lines of the newest file.
fn newest(dir: &Path) -> Vec<String> {
    let path = files(dir, "KRAKEN").expect("files").pop().expect("a file");
    Lines::open(&path).expect("opens").map(|line| line.expect("a line").text).collect()
}

#[test]
fn what_the_rest_cannot_be_read_without_is_kept_while_frames_give_way() {
    let dir = directory("queue");
    // Nobody writes yet.
    let (recorder, entries, _running) = Recorder::waiting("KRAKEN");
    fill(&recorder, 0);
    for _ in 0..QUEUE {
        recorder.frame(0, Micros(4), Bytes::from_static(b"x"));
    }
    recorder.lost(0, "reset".into());
    recorder.opened(0, url(), Micros(5), vec!["subscribe".into()]);
    recorder.frame(0, Micros(6), Bytes::from_static(b"too much"));
    // The four that came first wait too.
    assert_eq!(recorder.missing(), 4 + 1);
    let shared = Arc::clone(&recorder.shared);
    drop(recorder);
    Writer::new("KRAKEN", Micros(77), limits(&dir, 100 * MIB, 1_000 * MIB), shared).run(&entries);
    let lines = newest(&dir);
    let opened = format!("{} <-> 0.000005", url());
    let sent = format!("{} <- 0.000005: subscribe", url());
    assert_eq!(lines[lines.len() - 3..], ["! reset".to_owned(), opened, sent]);
    assert!(lines.contains(&"? 5".to_owned()), "what is missing is written down");
    std::fs::remove_dir_all(&dir).expect("removed");
}

#[test]
fn a_recording_that_lacks_what_the_rest_cannot_be_read_without_ends_there() {
    let (recorder, entries, _running) = Recorder::waiting("KRAKEN");
    for _ in 0..QUEUE + RESERVED {
        recorder.closed(9);
    }
    recorder.answer(url(), Micros(1), Bytes::from_static(b"{}"));
    assert_eq!(recorder.missing(), 1);
    assert!(!recorder.shared.is_over.load(Ordering::Relaxed), "an answer may be missing");
    recorder.closed(9);
    assert!(recorder.shared.is_over.load(Ordering::Relaxed));
    // There is room again, too late.
    entries.try_iter().for_each(|entry| recorder.shared.written(entry.bytes()));
    recorder.frame(0, Micros(2), Bytes::from_static(b"x"));
    assert!(entries.try_recv().is_err());
    assert_eq!(recorder.missing(), 3);
}

#[test]
fn what_changed_while_the_disk_took_nothing_is_said_by_the_next_file() {
    let dir = directory("refused");
    let shared = Arc::<Shared>::default();
    let limits = limits(&dir, 100 * MIB, 1_000 * MIB);
    let mut writer = Writer::new("KRAKEN", Micros(77), limits, Arc::clone(&shared));
    let unit = |first: usize| Entry::Unit { first, json: format!("{{\"first\":{first}}}") };
    let opened = |connection: usize| {
        let (url, time, sent) = (url(), Micros(2), Vec::new());
        Entry::Opened { connection, url, time, sent }
    };
    let frame = |connection: usize| {
        let (time, frame) = (Micros(3), Bytes::from_static(b"x"));
        Entry::Frame { connection, time, frame }
    };
    [unit(0), opened(0), frame(0)].into_iter().for_each(|entry| writer.take(entry));
    assert!(!writer.attempt(|_| Err(std::io::Error::other("no space left"))));
    let meanwhile = [unit(1), opened(1), Entry::Closed { first: 0 }, frame(1)];
    meanwhile.into_iter().for_each(|entry| writer.take(entry));
    assert_eq!(shared.missing.load(Ordering::Relaxed), 1, "the frame alone");
    writer.again = None;
    writer.take(frame(1));
    writer.finish().expect("written");
    let opened = format!("{} <-> 0.000002", url());
    let expected = ["+ {\"first\":1}", "@1", opened.as_str(), "? 1", "0.000003: x"];
    assert_eq!(newest(&dir), expected);
    std::fs::remove_dir_all(&dir).expect("removed");
}

/// On a runtime of one thread, which a wait for the writer would take.
#[tokio::test]
async fn closing_waits_for_all_that_was_given_and_holds_no_thread_of_the_runtime() {
    let dir = directory("close");
    let (recorder, entries, running) = Recorder::waiting("KRAKEN");
    fill(&recorder, 100);
    let shared = Arc::clone(&recorder.shared);
    let mut closing = std::pin::pin!(recorder.close());
    tokio::select! {
        biased;
        () = &mut closing => panic!("nothing is written yet"),
        () = std::future::ready(()) => {}
    }
    let limits = limits(&dir, 100 * MIB, 1_000 * MIB);
    let writer = Writer::new("KRAKEN", Micros(77), limits, shared);
    std::thread::spawn(move || {
        writer.run(&entries);
        drop(running);
    });
    closing.await;
    let recording = Recording::read(&dir, "kraken").expect("a recording");
    let frames: usize = recording.connections.iter().map(|c| c.frames.len()).sum();
    assert_eq!(frames, 100);
    std::fs::remove_dir_all(&dir).expect("removed");
    // Nor does dropping one, whose thread never ends.
    let (recorder, _entries, _running) = Recorder::waiting("KRAKEN");
    let begun = std::time::Instant::now();
    drop(recorder);
    assert!(begun.elapsed() < LAST_WORDS / 2);
}

#[tokio::test]
async fn the_tables_of_a_reload_stand_in_the_runs_first_file_behind_those_of_its_start() {
    let dir = directory("tables");
    let recorder = Recorder::start("KRAKEN", Micros(77), limits(&dir, 100 * MIB, 1_000 * MIB));
    fill(&recorder, 10);
    recorder.table("https://api.kraken.com/t".into(), Micros(9), Bytes::from_static(b"[1]"));
    fill(&recorder, 10);
    recorder.close().await;
    let kept = files(&dir, "KRAKEN").expect("files");
    assert_eq!(kept.len(), 2, "{kept:?}");
    let lines = Lines::open(&kept[0]).expect("opens").map(|line| line.expect("a line").text);
    let of_the_start = "https://api.kraken.com/t -> 0.000001: {}";
    let expected = [
        of_the_start,
        "configuration: {\"trades\":[\"A-B\"]}",
        "https://api.kraken.com/t -> 0.000009: [1]",
        of_the_start,
    ];
    assert_eq!(lines.collect::<Vec<_>>(), expected);
    std::fs::remove_dir_all(&dir).expect("removed");
}
