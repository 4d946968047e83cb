//! Places where a test may make the process die or the world change (issue 4, fault harness).
//!
//! Unarmed, a place costs one relaxed load.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Every place by its stage, in the order a batch passes them.
pub const PLACES: [&str; 33] = [
    "validate.after_quarantine",
    "validate.before_produce",
    "validate.mid_produce",
    "validate.after_produce",
    "validate.after_delivery",
    "store.before_begin",
    "store.before_copy",
    "store.mid_copy",
    "store.before_commit",
    "store.after_commit",
    "cache.before_write",
    "cache.after_write",
    "influx.before_write",
    "influx.mid_write",
    "influx.after_write",
    "candles.before_produce",
    "candles.after_produce",
    "candles.after_delivery",
    "candles-longer.before_produce",
    "candles-longer.after_produce",
    "candles-longer.after_delivery",
    "candles-reviser.before_transaction",
    "candles-reviser.before_commit",
    "candles-reviser.after_transaction",
    "candles-outbox.after_send",
    "archive.reading",
    "archive.after_upload",
    "archive.before_manifest",
    "archive.after_manifest",
    "lifecycle.before_mark",
    "lifecycle.before_drop",
    "lifecycle.before_commit",
    "lifecycle.after_commit",
];

type Action = Box<dyn FnMut() + Send>;

struct Armed {
    place: String,
    /// Passes left, this one included, until it acts.
    passes: u32,
    action: Action,
}

static ANY: AtomicBool = AtomicBool::new(false);
static ARMED: Mutex<Vec<Armed>> = Mutex::new(Vec::new());

/// Acts if `place` is armed and passed for the time it is armed for.
#[inline]
pub fn hit(place: &str) {
    if ANY.load(Ordering::Relaxed) {
        act(place);
    }
}

/// The same for a place that several stages pass.
#[inline]
pub fn hit_in(stage: &str, step: &str) {
    if ANY.load(Ordering::Relaxed) {
        act(&format!("{stage}.{step}"));
    }
}

#[cold]
fn act(place: &str) {
    let mut due = Vec::new();
    {
        let mut armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner);
        for point in armed.iter_mut().filter(|point| point.place == place) {
            point.passes -= 1;
        }
        due.extend(armed.extract_if(.., |point| point.passes == 0));
        ANY.store(!armed.is_empty(), Ordering::Relaxed);
    }
    for mut point in due {
        (point.action)();
    }
}

/// Runs `action` once, when `place` is passed for the `pass`th time from now.
pub fn arm(place: &str, pass: u32, action: impl FnMut() + Send + 'static) {
    let point = Armed { place: place.to_owned(), passes: pass.max(1), action: Box::new(action) };
    ARMED.lock().unwrap_or_else(PoisonError::into_inner).push(point);
    ANY.store(true, Ordering::Relaxed);
}

/// Arms places to kill or to freeze this process: `name[:pass][:stop][,…]`, as in
/// `TAPELINE_FAILPOINTS`. A frozen process goes on when it is sent SIGCONT.
pub fn arm_signals(text: &str) -> Result<(), String> {
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (rest, signal) = match part.strip_suffix(":stop") {
            Some(rest) => (rest, libc::SIGSTOP),
            None => (part, libc::SIGKILL),
        };
        let (place, pass) = rest.split_once(':').unwrap_or((rest, "1"));
        if !PLACES.contains(&place) {
            return Err(format!("no failpoint `{place}`, there are {}", PLACES.join(", ")));
        }
        let pass = pass.parse().ok().filter(|&pass| pass > 0).ok_or_else(|| {
            format!("failpoint `{part}`: `{pass}` is not a number of passes from 1 up")
        })?;
        let name = place.to_owned();
        arm(place, pass, move || signal_self(&name, signal));
    }
    Ok(())
}

/// What a process says on standard error before a failpoint strikes it.
pub const LAST_WORDS: &str = "failpoint reached: ";

/// Dies as from `kill -9`: nothing is flushed, no destructor runs. Or freezes all threads.
fn signal_self(place: &str, signal: i32) {
    eprintln!("{LAST_WORDS}{place}");
    // SAFETY: both calls only take and return numbers.
    unsafe {
        libc::kill(libc::getpid(), signal);
    }
    if signal == libc::SIGKILL {
        // The signal is delivered before `kill` returns to a process that sends it to itself; if
        // a container forbids it, dying otherwise is the next best.
        std::process::abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn a_place_acts_once_at_the_pass_it_is_armed_for() {
        let acted = Arc::new(AtomicU32::new(0));
        let counter = Arc::clone(&acted);
        arm("test.only", 2, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let seen: Vec<u32> = (0..3)
            .map(|_| {
                hit("test.only");
                acted.load(Ordering::Relaxed)
            })
            .collect();
        assert_eq!(seen, [0, 1, 1]);
    }

    #[test]
    fn a_misspelt_failpoint_is_refused() {
        assert!(arm_signals("store.before_commmit").is_err());
        assert!(arm_signals("store.before_commit:0").is_err());
        assert!(arm_signals("store.before_commit:halt").is_err());
        assert!(arm_signals("store.before_commit:0:stop").is_err());
        assert_eq!(arm_signals(""), Ok(()));
    }
}
