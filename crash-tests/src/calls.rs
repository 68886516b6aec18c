//! F1: each K-th system call of a kind on the data directory fails, once or from then on. Expected:
//! nothing acknowledged is lost, no wrong value, no hang, no panic, and under `always` no
//! acknowledgement after a sync of the log has failed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Result;
use crate::client::{Connection, End, Pace, end_of, unix_now};
use crate::disk::Scratch;
use crate::options::Options;
use crate::server::{Policy, Server, Spec, StartError, status_text};
use crate::session::{Crash, Tally, check, load, streams};
use crate::strace::{self, Injected};
use crate::stream::Stream;

const PACE: Pace = Pace { batch_max: 8, pause: Duration::from_millis(1) };
const BEFORE_SNAPSHOT: Duration = Duration::from_millis(150);
const AFTER_SNAPSHOT: Duration = Duration::from_millis(250);
const START_TIME_MAX: Duration = Duration::from_secs(15);
/// Between a failed sync and the last reply that left before it.
const IN_FLIGHT_MAX: Duration = Duration::from_millis(100);
const RECORDED: &str = "openat,creat,write,writev,pwrite64,pwritev,pwritev2,fdatasync,fsync,\
                        rename,renameat,renameat2,ftruncate,fallocate,unlink,unlinkat,close";
/// Exit code of a Rust panic that does not abort.
const PANIC_CODE: i32 = 101;

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    if !strace::works() {
        println!("skipped: calls needs strace");
        return Ok(true);
    }
    println!(
        "| server | fsync | call | cases | reached | start refused | exited | served on \
         | acknowledged | lost | wrong | hung | acks after a failed sync | other | result |\n\
         |---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
    );
    let options = Options { clients: 2, keys: options.keys.min(64), ..options.clone() };
    let mut kept = true;
    for program in [Some(&options.server), options.beside.as_ref()].into_iter().flatten() {
        for &policy in &options.policies {
            let scratch = Scratch::new(&options.work)?;
            let mut spec = Spec::new(&options, program, policy, &scratch.0);
            spec.start_time_max = START_TIME_MAX;
            let directory = scratch.0.join("data");
            let trace = scratch.0.join("strace.out");
            let mut rig =
                Rig { options: &options, spec, scratch, directory, trace, paths: BTreeSet::new() };
            rig.learn()?;
            for call in &options.calls {
                kept &= rig.call(call)?;
            }
        }
    }
    Ok(kept)
}

/// From when on calls are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The start of a server on an empty directory.
    Fresh,
    /// The start of a server on data of another.
    Start,
    /// The beginning of the load.
    Load,
}

/// One kind of failure.
#[derive(Clone, Copy, Debug)]
struct Case<'a> {
    call: &'a str,
    phase: Phase,
    error: &'a str,
    number: u32,
    forever: bool,
}

#[derive(Debug, Default)]
struct Figures {
    cases: u64,
    reached: u64,
    start_refused: u64,
    exited: u64,
    served: u64,
    late_acks: u64,
    tally: Tally,
}

struct Rig<'a> {
    options: &'a Options,
    spec: Spec,
    scratch: Scratch,
    directory: PathBuf,
    trace: PathBuf,
    /// Every path below the data directory that the server uses in a run.
    paths: BTreeSet<String>,
}

impl Rig<'_> {
    /// Runs the load once without faults, to learn the names of the files: strace selects calls by
    /// exact path only.
    fn learn(&mut self) -> Result<()> {
        self.scratch.fresh("data")?;
        let mut spec = self.spec.clone();
        spec.wrapper = strace::record(RECORDED, &self.trace);
        let mut server = Server::start(&spec, &self.directory)?;
        let mut streams = streams(self.options, &spec);
        let seen = run_load(&mut streams, &mut server);
        drop(server);
        if let Some(garbage) = seen.into_iter().find_map(|problem| problem) {
            return Err(format!("without faults: {garbage}").into());
        }
        let text = fs::read(&self.trace)?;
        self.paths = strace::paths(&String::from_utf8_lossy(&text), &self.directory);
        // Redis opens its files relative to the directory.
        let top = format!("{}/", self.directory.display());
        let relative = self.paths.iter().filter_map(|path| path.strip_prefix(&top));
        let relative: Vec<_> = relative.map(str::to_owned).collect();
        self.paths.extend(relative);
        self.paths.insert(self.directory.display().to_string());
        if self.options.verbose {
            eprintln!("paths: {:?}", self.paths);
        }
        Ok(())
    }

    /// All cases of a call. Prints the row.
    fn call(&self, call: &str) -> Result<bool> {
        let (phase, name) = match call.split_once(':') {
            None => (Phase::Fresh, call),
            Some(("start", name)) => (Phase::Start, name),
            Some(("load", name)) => (Phase::Load, name),
            Some((other, _)) => return Err(format!("--calls: {other}: say start or load").into()),
        };
        let mut figures = Figures::default();
        for error in &self.options.errors {
            for &number in &self.options.k {
                for forever in [false, true] {
                    let case = Case { call: name, phase, error, number, forever };
                    self.case(case, &mut figures)?;
                }
            }
        }
        let Figures { cases, reached, start_refused, exited, served, late_acks, tally } = figures;
        let broken = tally.is_broken(Crash::Disk) || late_acks > 0;
        println!(
            "| {} | {} | {call} | {cases} | {reached} | {start_refused} | {exited} | {served} \
             | {} | {} | {} | {} | {late_acks} | {} | {} |",
            self.spec.name(),
            self.spec.policy.name(),
            tally.acknowledged,
            tally.lost,
            tally.faults.values().sum::<u64>(),
            tally.hung,
            tally.others + tally.start_failures,
            if broken { "BROKEN" } else { "kept" },
        );
        if broken {
            tally.print_examples();
        }
        Ok(!broken)
    }

    fn case(&self, case: Case<'_>, figures: &mut Figures) -> Result<()> {
        figures.cases += 1;
        let before = (figures.tally.examples.len(), figures.tally.others);
        self.scratch.fresh("data")?;
        let mut streams = streams(self.options, &self.spec);
        let mut paths = self.paths.clone();
        if case.phase == Phase::Start {
            let mut server = Server::start(&self.spec, &self.directory)?;
            run_load(&mut streams, &mut server);
            server.kill();
            collect_files(&self.directory, &mut paths)?;
        }
        let mut spec = self.spec.clone();
        let Case { call, error, number, forever, .. } = case;
        let _ = fs::remove_file(&self.trace);
        if case.phase != Phase::Load {
            spec.wrapper = strace::fail(call, error, number, forever, &paths, &self.trace);
        }
        match Server::start(&spec, &self.directory) {
            Ok(mut server) => {
                let tracer = match case.phase {
                    Phase::Load => {
                        collect_files(&self.directory, &mut paths)?;
                        let words = strace::fail(call, error, number, forever, &paths, &self.trace);
                        Some(strace::attach(words, server.pid())?)
                    }
                    Phase::Fresh | Phase::Start => None,
                };
                self.serve(case, &mut server, &mut streams, figures);
                // It ends by itself, as the server has.
                drop(tracer);
            }
            Err(StartError::Ended(status, log)) => {
                figures.start_refused += 1;
                if is_crash(status) || status.success() {
                    let status = status_text(status);
                    figures.tally.violation(format!("{status} at start: {log}"));
                }
            }
            Err(StartError::Silent(log)) => {
                figures.tally.hung += 1;
                figures.tally.example(format!("hung at start: {log}"));
            }
            Err(error) => return Err(error.into()),
        }
        let injected = self.injected();
        figures.reached += u64::from(!injected.is_empty());
        self.late_acks(case, &injected, &streams, figures);
        self.restart(&mut streams, &mut figures.tally)?;
        if figures.tally.examples.len() > before.0 || self.options.verbose {
            let at = injected.first().map_or("never reached", |first| first.call.as_str());
            eprintln!("  {case:?}: {at}: {:?}", figures.tally.examples.last());
        }
        Ok(())
    }

    /// Load while calls fail; the server may exit, but neither hang nor answer wrongly.
    fn serve(
        &self,
        case: Case<'_>,
        server: &mut Server,
        streams: &mut [Stream],
        figures: &mut Figures,
    ) {
        let tally = &mut figures.tally;
        if case.phase == Phase::Start {
            // It started in spite of all: then everything must be there.
            let crash = (Crash::Disk, Instant::now());
            if let Err(error) = check(streams, server.address, &self.spec, crash, tally) {
                tally.example(format!("reading back: {error}"));
            }
        }
        for problem in run_load(streams, server).into_iter().flatten() {
            match server.ended() {
                // Whoever was connected when it exited has nothing to complain of.
                Some(_) => {}
                None if problem == HUNG => {
                    tally.hung += 1;
                    tally.example(format!("{problem}; the log ends: {}", server.log_tail()));
                }
                None => tally.violation(problem),
            }
        }
        match server.ended() {
            Some(status) => {
                figures.exited += 1;
                if is_crash(status) {
                    let log = server.log_tail();
                    tally.violation(format!("{}: {log}", status_text(status)));
                }
            }
            None => {
                figures.served += 1;
                read_live(streams, server, tally);
            }
        }
        server.kill();
    }

    /// Without faults everything acknowledged must be there.
    fn restart(&self, streams: &mut [Stream], tally: &mut Tally) -> Result<()> {
        tally.rounds += 1;
        match Server::start(&self.spec, &self.directory) {
            Ok(server) => {
                let crash = (Crash::Disk, Instant::now());
                check(streams, server.address, &self.spec, crash, tally)?;
            }
            Err(error) => {
                tally.start_failures += 1;
                tally.example(format!("start without faults: {error}"));
            }
        }
        Ok(())
    }

    fn injected(&self) -> Vec<Injected> {
        let text = fs::read(&self.trace).unwrap_or_default();
        strace::injected(&String::from_utf8_lossy(&text))
    }

    /// Under `always`, counts acknowledgements that came after a sync of the log had failed.
    fn late_acks(
        &self,
        case: Case<'_>,
        injected: &[Injected],
        streams: &[Stream],
        figures: &mut Figures,
    ) {
        let syncs = ["fdatasync", "fsync"].contains(&case.call) && case.error != "EINTR";
        if self.spec.policy != Policy::Always || !syncs || case.phase == Phase::Start {
            return;
        }
        let Some(first) = injected.iter().find(|call| is_log(&call.call)) else { return };
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let ago = Duration::try_from_secs_f64(now_s - first.at_s).unwrap_or_default();
        let Some(failed) = Instant::now().checked_sub(ago) else { return };
        let keys = streams.iter().flat_map(|stream| &stream.keys);
        let late: u64 =
            keys.map(|key| key.history.acknowledged_after(failed + IN_FLIGHT_MAX)).sum();
        if late > 0 {
            figures.late_acks += late;
            figures.tally.example(format!("{late} acknowledged after {}", first.call));
        }
    }
}

const HUNG: &str = "a reply was missing for 10 s";

/// Whether the path in a call is a log's: ours, or Redis's.
fn is_log(call: &str) -> bool {
    call.contains("/log-") || call.contains(".incr.aof")
}

/// A panic or a signal is no answer to a failing disk.
fn is_crash(status: std::process::ExitStatus) -> bool {
    status.code().is_none_or(|code| code == PANIC_CODE)
}

/// Mutations, a snapshot in between. Returns what each writer has to complain of.
fn run_load(streams: &mut [Stream], server: &mut Server) -> Vec<Option<String>> {
    let (address, dialect) = (server.address, server.dialect);
    let (snapshot, seen) = load(streams, address, PACE, || {
        sleep(BEFORE_SNAPSHOT);
        let reply = Connection::open(address, dialect)
            .and_then(|mut connection| connection.ask(dialect.snapshot()));
        sleep(AFTER_SNAPSHOT);
        reply.err().filter(|error| end_of(error) == End::Hung)
    });
    let mut problems = vec![snapshot.map(|_| HUNG.to_owned())];
    // The process takes a moment to exit after its connections have closed.
    if seen.iter().any(|writer| writer.end == Some(End::Closed)) {
        server.wait(Duration::from_secs(1));
    }
    problems.extend(seen.into_iter().map(|writer| match (writer.end, writer.garbage) {
        (_, Some(line)) => Some(format!("reply that is none: {line:?}")),
        (Some(End::Hung), _) => Some(HUNG.to_owned()),
        _ => None,
    }));
    problems
}

/// Reads from the running server must agree with its replies.
fn read_live(streams: &[Stream], server: &Server, tally: &mut Tally) {
    for stream in streams {
        let found = Connection::open(server.address, server.dialect)
            .and_then(|mut connection| connection.read_back(stream));
        match found {
            Ok(found) => {
                let now = unix_now();
                for (key, observed) in stream.keys.iter().zip(&found) {
                    if !key.history.agrees(server.dialect, observed.as_ref(), now) {
                        let name = key.name.escape_ascii();
                        tally.violation(format!("{name}: wrong value while serving"));
                    }
                }
            }
            Err(error) if end_of(&error) == End::Hung => {
                tally.hung += 1;
                tally.example("a read hung".to_owned());
            }
            Err(error) => tally.violation(format!("reading while serving: {error}")),
        }
    }
}

/// Adds every file below `directory`.
fn collect_files(directory: &Path, paths: &mut BTreeSet<String>) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        paths.insert(path.display().to_string());
        if path.is_dir() {
            collect_files(&path, paths)?;
        }
    }
    Ok(())
}
