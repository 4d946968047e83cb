//! What a playback does wrong on purpose, by chance from a seed.

use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tapeline_schemas::Micros;

use super::random::Random;
use super::recording::Payload;

/// Chances are counted in millionths.
const SURE: u64 = 1_000_000;
/// Faults remembered one by one; beyond it they are only counted.
const REMEMBERED: usize = 10_000;

/// How often each fault happens, and how long those last that take time. Nothing by default.
///
/// Written as `drop=1,duplicate=1,reorder=1,checksum=0.5,cut=0.1,stall=0.1,stall-ms=2000,http-429=10,http-5xx=10,slow-snapshot-ms=500`:
/// chances in percent of frames or answers, with up to four decimals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    drop: u64,
    duplicate: u64,
    reorder: u64,
    checksum: u64,
    cut: u64,
    stall: u64,
    stall_for: Duration,
    http_429: u64,
    http_5xx: u64,
    slow_snapshot: Duration,
}

impl Faults {
    pub(super) fn slow_snapshot(&self) -> Duration {
        self.slow_snapshot
    }
}

impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Faults, String> {
        let mut faults = Faults { stall_for: Duration::from_secs(2), ..Faults::default() };
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}`: expected NAME=NUMBER"))?;
            let millis = || {
                let millis = value.parse().ok().filter(|millis| *millis <= 600_000);
                let millis = millis.ok_or_else(|| format!("`{part}`: expected 0 to 600000 ms"));
                millis.map(Duration::from_millis)
            };
            let chance = match name.trim() {
                "drop" => &mut faults.drop,
                "duplicate" => &mut faults.duplicate,
                "reorder" => &mut faults.reorder,
                "checksum" => &mut faults.checksum,
                "cut" => &mut faults.cut,
                "stall" => &mut faults.stall,
                "http-429" => &mut faults.http_429,
                "http-5xx" => &mut faults.http_5xx,
                "stall-ms" => {
                    faults.stall_for = millis()?;
                    continue;
                }
                "slow-snapshot-ms" => {
                    faults.slow_snapshot = millis()?;
                    continue;
                }
                other => {
                    return Err(format!(
                        "unknown fault `{other}`, expected drop, duplicate, reorder, checksum, cut, stall, \
                         stall-ms, http-429, http-5xx or slow-snapshot-ms"
                    ));
                }
            };
            *chance =
                percent(value).ok_or_else(|| format!("`{part}`: expected 0 to 100 percent"))?;
        }
        Ok(faults)
    }
}

/// A percentage in millionths, read without a float.
fn percent(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 4 || !part.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let part: u64 = format!("{part:0<4}").parse().ok()?;
    let millionths = whole.parse::<u64>().ok()?.checked_mul(SURE / 100)?.checked_add(part)?;
    (millionths <= SURE).then_some(millionths)
}

/// What happens to a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It is never sent.
    Drop,
    /// It is sent twice.
    Duplicate,
    /// It comes after the one behind it.
    Reorder,
    /// Its checksum is another one.
    Checksum,
    /// The connection ends in the middle of it.
    Cut,
    /// It comes late, and all behind it.
    Stall,
}

/// One thing done wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Injected {
    /// The venue.
    pub venue: String,
    /// What was done.
    pub deed: Deed,
    /// Channels, or channels and symbols, of the frame in the venue's terms.
    pub channels: Vec<String>,
    /// Its recorded receive time.
    pub time: Micros,
}

/// Remembers what was done wrong, up to a number.
#[derive(Debug, Clone, Default)]
pub struct Journal(Arc<Mutex<(u64, Vec<Injected>)>>);

impl Journal {
    fn lock(&self) -> MutexGuard<'_, (u64, Vec<Injected>)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn note(&self, injected: Injected) {
        let mut journal = self.lock();
        journal.0 += 1;
        if journal.1.len() < REMEMBERED {
            journal.1.push(injected);
        }
    }

    /// How many faults there were.
    pub fn count(&self) -> u64 {
        self.lock().0
    }

    /// The first of them.
    pub fn first(&self) -> Vec<Injected> {
        self.lock().1.clone()
    }
}

/// What may happen to an HTTP answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    TooMany,
    Broken,
}

/// Draws faults for one connection, or for a venue's answers.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Faults,
    random: Random,
}

impl Injector {
    /// Another `part` of the same seed has other faults, but always the same.
    pub(super) fn new(faults: Faults, seed: u64, part: &str) -> Injector {
        let part = xxhash_rust::xxh3::xxh3_64(part.as_bytes());
        Injector { faults, random: Random::new(seed ^ part) }
    }

    /// What happens to the next frame. The `last` frame of a channel is not lost: nothing after it could show that.
    pub(super) fn frame(&mut self, last: bool) -> Option<Deed> {
        let faults = self.faults;
        let mut draw = self.random.below(SURE);
        let deeds = [
            (Deed::Drop, faults.drop),
            (Deed::Duplicate, faults.duplicate),
            (Deed::Reorder, faults.reorder),
            (Deed::Checksum, faults.checksum),
            (Deed::Cut, faults.cut),
            (Deed::Stall, faults.stall),
        ];
        for (deed, chance) in deeds {
            if draw < chance {
                return Some(deed).filter(|deed| !last || *deed != Deed::Drop);
            }
            draw -= chance;
        }
        None
    }

    pub(super) fn answer(&mut self) -> Option<Refusal> {
        let draw = self.random.below(SURE);
        if draw < self.faults.http_429 {
            Some(Refusal::TooMany)
        } else {
            (draw < self.faults.http_429 + self.faults.http_5xx).then_some(Refusal::Broken)
        }
    }

    pub(super) fn stall(&self) -> Duration {
        self.faults.stall_for
    }

    pub(super) fn slow_snapshot(&self) -> Duration {
        self.faults.slow_snapshot
    }

    /// How many bytes of `length` are let through before a cut.
    pub(super) fn part_of(&mut self, length: usize) -> usize {
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        usize::try_from(1 + self.random.below(length.saturating_sub(1))).unwrap_or(1)
    }
}

/// The frame with another checksum, if it has one.
pub(super) fn spoil(payload: &Payload) -> Option<Payload> {
    let Payload::Text(text) = payload else { return None };
    let at =
        [r#""c":""#, r#""checksum":"#].iter().find_map(|key| Some(text.rfind(key)? + key.len()))?;
    let at = if text[at..].starts_with('-') { at + 1 } else { at };
    let digit = text[at..].chars().next()?.to_digit(10)?;
    let mut spoilt = text.clone();
    spoilt.replace_range(at..=at, &((digit + 1) % 10).to_string());
    Some(Payload::Text(spoilt))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_in_percent_and_what_is_none_is_named() {
        let faults: Faults = "drop=1,cut=0.05,stall-ms=70,http-429=100".parse().expect("valid");
        assert_eq!((faults.drop, faults.cut, faults.http_429), (10_000, 500, SURE));
        assert_eq!(faults.stall_for, Duration::from_millis(70));
        for (text, named) in [
            ("drop", "NAME=NUMBER"),
            ("drop=101", "0 to 100 percent"),
            ("drop=0.00001", "0 to 100 percent"),
            ("melt=1", "unknown fault `melt`"),
            ("stall-ms=x", "600000 ms"),
        ] {
            let error = text.parse::<Faults>().expect_err(text);
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_and_the_last_frame_is_never_lost() {
        let faults: Faults = "drop=30,duplicate=30".parse().expect("valid");
        let draw = |seed, part, last| -> Vec<Option<Deed>> {
            let mut injector = Injector::new(faults, seed, part);
            (0..200).map(|_| injector.frame(last)).collect()
        };
        assert_eq!(draw(1, "a", false), draw(1, "a", false));
        assert_ne!(draw(1, "a", false), draw(1, "b", false));
        assert_ne!(draw(1, "a", false), draw(2, "a", false));
        assert!(draw(1, "a", false).contains(&Some(Deed::Drop)));
        assert!(!draw(1, "a", true).contains(&Some(Deed::Drop)));
    }

    #[test]
    fn only_a_checksum_is_spoilt() {
        let spoilt = |text: &str| match spoil(&Payload::Text(text.to_owned())) {
            Some(Payload::Text(text)) => Some(text),
            _ => None,
        };
        let kraken = spoilt(r#"[1,{"b":[]},{"a":[],"c":"9123"},"book-10","A/B"]"#);
        assert_eq!(kraken.as_deref(), Some(r#"[1,{"b":[]},{"a":[],"c":"0123"},"book-10","A/B"]"#));
        let okx = spoilt(r#"{"data":[{"ts":"1","checksum":-123}]}"#);
        assert_eq!(okx.as_deref(), Some(r#"{"data":[{"ts":"1","checksum":-223}]}"#));
        assert_eq!(spoilt(r#"{"u":1}"#), None);
    }
}
