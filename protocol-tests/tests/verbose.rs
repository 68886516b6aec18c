//! Every transcript with all log lines made, as under `-vvv`: printing what clients sent was the
//! cause of several weaknesses of memcached. The server runs in this process, so that the lines can
//! be looked at: what a client sent must not break them or move a terminal's cursor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::{LevelFilter, Log, Metadata, Record};
use protocol_tests::target::Target;
use protocol_tests::transcript::chunking::Cuts;
use protocol_tests::transcript::replay::Bursts;
use protocol_tests::transcript::suite::{load_all, play_all};

/// Makes every line and keeps the bad ones.
struct Lines {
    made: AtomicUsize,
    bad: Mutex<Vec<String>>,
}

static LINES: Lines = Lines { made: AtomicUsize::new(0), bad: Mutex::new(Vec::new()) };

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = record.args().to_string();
        self.made.fetch_add(1, Ordering::Relaxed);
        if line.chars().any(char::is_control) {
            self.bad.lock().unwrap().push(line);
        }
    }

    fn flush(&self) {}
}

#[test]
fn transcripts_hold_with_every_line_logged() {
    log::set_logger(&LINES).unwrap();
    let transcripts = load_all().unwrap();
    let start = |flags: &_| {
        let target = Target::start_distcached(flags);
        // A transcript before may have lowered it by `verbosity`.
        log::set_max_level(LevelFilter::Trace);
        target
    };
    play_all(&transcripts, start, Bursts::Exchange, Cuts::None)
        .unwrap_or_else(|failures| panic!("{}", failures.join("\n")));
    let made = LINES.made.load(Ordering::Relaxed);
    // An external binary logs for itself.
    assert!(made > 1000 || std::env::var_os("DISTCACHED").is_some(), "{made} lines");
    let bad = LINES.bad.lock().unwrap();
    assert!(bad.is_empty(), "{} lines with control characters: {:?}", bad.len(), bad[0]);
}
