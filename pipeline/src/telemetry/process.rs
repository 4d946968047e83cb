//! What the operating system says of this process. Read when asked for, from Linux's `/proc`;
//! elsewhere these figures are absent.

use metrics::{Unit, describe_gauge, gauge};

const RESIDENT: &str = "process_resident_memory_bytes";
const RESIDENT_PEAK: &str = "process_resident_memory_peak_bytes";
const THREADS: &str = "process_threads";
const OPEN_FILES: &str = "process_open_fds";

pub(super) fn describe() {
    describe_gauge!(RESIDENT, Unit::Bytes, "memory of this process that is in RAM");
    describe_gauge!(RESIDENT_PEAK, Unit::Bytes, "the most that was ever in RAM");
    describe_gauge!(THREADS, Unit::Count, "threads of this process");
    describe_gauge!(OPEN_FILES, Unit::Count, "files and sockets that are open");
}

pub(super) fn record() {
    if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
        for (field, name, scale) in [
            ("VmRSS", RESIDENT, 1024.0),
            ("VmHWM", RESIDENT_PEAK, 1024.0),
            ("Threads", THREADS, 1.0),
        ] {
            if let Some(value) = number(&status, field) {
                gauge!(name).set(value * scale);
            }
        }
    }
    if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(open.count() as f64);
    }
}

/// The number of a line like `VmRSS:   1234 kB`.
fn number(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_status_are_read_by_their_full_name() {
        let status = "VmRSSX:\t1 kB\nVmRSS:\t  2048 kB\nThreads:\t5\n";
        assert_eq!(number(status, "VmRSS"), Some(2048.0));
        assert_eq!(number(status, "Threads"), Some(5.0));
        assert_eq!(number(status, "VmHWM"), None);
    }
}
