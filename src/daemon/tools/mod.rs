//! The operator's tools: sub-commands of the daemon's binary.
//!
//! Owns their command lines, what they print and their exit codes. What `check`, `dump` and
//! `repair` do is in `crate::durable::tools`; `load` speaks to servers and touches no directory.
//!
//! | file | what it holds |
//! |---|---|
//! | `stream` | reading a dump |
//! | `load` | storing items in a running server |
//! | `migrate` | getting items from a running server |
//! | `peer` | the way to a server: TCP, TLS, login |
//! | `progress` | how far a tool has come |
//! | `help` | what `-h` behind each says |

mod help;
mod load;
mod migrate;
mod peer;
mod progress;
mod stream;

use crate::daemon::options::help_text;
use crate::daemon::os::{self, Exit};
use crate::durable::disk::{Access, Disk, RealDisk};
use crate::durable::tools::backup::backup;
use crate::durable::tools::check::check;
use crate::durable::tools::dump::Dump;
use crate::durable::tools::repair::{Repaired, repair};
use crate::durable::{Error, ErrorKind};
use crate::server::clock::Clock;
use crate::system::{self, Owner};
use indicatif::ProgressBar;
use lexopt::{Arg, Parser};
use peer::Peer;
use progress::{Watched, style};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The dump's buffer.
const OUTPUT_BYTES: usize = 1 << 20;

/// What a tool ends with, and what it says on standard error then.
type Ended = Result<(), Exit>;

/// A sub-command: how it is called, what it does, and its help.
struct Tool {
    name: &'static str,
    run: fn(Parser) -> Ended,
    help: &'static str,
}

const fn tool(name: &'static str, run: fn(Parser) -> Ended, help: &'static str) -> Tool {
    Tool { name, run, help }
}

const TOOLS: [Tool; 5] = [
    tool("check", run_check, help::CHECK),
    tool("dump", run_dump, help::DUMP),
    tool("repair", run_repair, help::REPAIR),
    tool("backup", run_backup, help::BACKUP),
    tool("load", run_load, help::LOAD),
];

/// Runs the tool that the first word behind the program's name asks for; `help` alone is the
/// daemon's help. `None`: none is asked for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Option<Ended> {
    let mut args = args.into_iter();
    let program = args.next()?.to_string_lossy().into_owned();
    let word = args.next()?;
    if word == "help" {
        return Some(help(&program, args.next()));
    }
    let Some(found) = TOOLS.iter().find(|tool| word == tool.name) else {
        return misspelt(&program, &word).map(Err);
    };
    // For whoever wants to see more: RUST_LOG. A log that is there already is used.
    let mut log = env_logger::Builder::new();
    let _ = log.filter_level(log::LevelFilter::Off).parse_default_env().try_init();
    let rest: Vec<OsString> = args.collect();
    if rest.iter().any(|arg| arg == "-h" || arg == "--help") {
        return Some(print(found.help));
    }
    Some((found.run)(Parser::from_args(rest)).map_err(|exit| match exit.code {
        os::EX_USAGE => Exit::usage(format!("{}: {exit}\n\n{}", found.name, found.help)),
        _ => exit,
    }))
}

/// A first word that is neither a tool nor an option. memcached starts and ignores it; whoever
/// mistyped a tool would have a server without their data.
fn misspelt(program: &str, word: &OsStr) -> Option<Exit> {
    let is_option = word.is_empty() || word.as_encoded_bytes().starts_with(b"-");
    if is_option || Path::new(program).file_stem().is_some_and(|name| name == "memcached") {
        return None;
    }
    let names = TOOLS.map(|tool| tool.name).join(", ");
    let word = word.display();
    Some(usage(format!("{word:?} is none of {names}; options of the server begin with a dash")))
}

/// `help`, and `help TOOL`.
fn help(program: &str, about: Option<OsString>) -> Ended {
    let Some(about) = about else { return print(&help_text(program)) };
    match TOOLS.iter().find(|tool| about == tool.name) {
        Some(tool) => print(tool.help),
        None => {
            let names = TOOLS.map(|tool| tool.name).join(", ");
            Err(Exit::usage(format!(
                "help: {:?} is none of {names}; \"distcached help\" is about the server",
                about.display()
            )))
        }
    }
}

fn usage(why: impl std::fmt::Display) -> Exit {
    Exit::usage(why.to_string())
}

/// Writes to standard output. Nobody reading any more is no trouble.
fn print(text: &str) -> Ended {
    match io::stdout().write_all(text.as_bytes()) {
        Err(why) if why.kind() != io::ErrorKind::BrokenPipe => Err(failed("standard output", &why)),
        _ => Ok(()),
    }
}

fn failed(what: &str, why: &io::Error) -> Exit {
    Exit { code: os::EX_IOERR, message: format!("{what}: {why}") }
}

/// The exit code for each kind of trouble, as the daemon's.
fn code_of(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Damaged => os::EX_DATAERR,
        ErrorKind::OtherVersion | ErrorKind::Memory => os::EX_CONFIG,
        ErrorKind::Interrupted => os::EX_TEMPFAIL,
        ErrorKind::InUse => os::EX_TEMPFAIL,
        ErrorKind::Io => os::EX_IOERR,
    }
}

fn refused(why: &Error) -> Exit {
    let hint = match why.kind {
        ErrorKind::Damaged => {
            "\"distcached check DIR\" says what is damaged, \"distcached dump --salvage DIR\" \
             takes what is intact, \"distcached repair DIR\" makes the directory whole"
        }
        ErrorKind::OtherVersion => "use the version that wrote it",
        ErrorKind::Memory | ErrorKind::Interrupted => "try again",
        ErrorKind::InUse => "end the server that uses it first",
        ErrorKind::Io => "see to the disk and the rights of the directory",
    };
    Exit { code: code_of(why.kind), message: format!("{why}\n{hint}") }
}

/// Reads a command line that names one directory and perhaps gives the one flag there is.
fn directory_of(mut parser: Parser, flag: Option<&str>) -> Result<(PathBuf, bool), Exit> {
    let (mut directory, mut given) = (None, false);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Long(name) if Some(name) == flag => given = true,
            Arg::Value(word) if directory.is_none() => directory = Some(PathBuf::from(word)),
            other => return Err(usage(other.unexpected())),
        }
    }
    match directory {
        Some(directory) => Ok((directory, given)),
        None => Err(usage("name a directory")),
    }
}

fn open(path: &Path, access: Access) -> Result<RealDisk, Exit> {
    // `Exclusive` would make one that is not there.
    let found = if path.is_dir() {
        RealDisk::open(path, access)
    } else {
        Err(io::Error::new(io::ErrorKind::NotADirectory, "there is no such directory"))
    };
    found.map_err(|why| match why.kind() {
        io::ErrorKind::WouldBlock => {
            refused(&Error::io(path.display().to_string(), "used by another process", why))
        }
        _ => failed(&path.display().to_string(), &why),
    })
}

fn random() -> crate::durable::directory::Random {
    Box::new(|| getrandom::u64().map_err(io::Error::other))
}

fn run_check(parser: Parser) -> Ended {
    let (path, _) = directory_of(parser, None)?;
    let disk = Watched::new(open(&path, Access::Shared)?);
    let checked = check(&disk).map_err(|why| refused(&why))?;
    drop(disk);
    print(&checked.to_string())?;
    match checked.worst() {
        None => Ok(()),
        Some(kind) => Err(Exit { code: code_of(kind), message: "the directory is damaged".into() }),
    }
}

fn run_dump(parser: Parser) -> Ended {
    let (path, salvage) = directory_of(parser, Some("salvage"))?;
    let disk = Watched::new(open(&path, Access::Shared)?);
    let now = Clock::start().now();
    let dump = Dump::read(&disk, salvage, now).map_err(|why| refused(&why))?;
    drop(disk);
    let mut output = BufWriter::with_capacity(OUTPUT_BYTES, io::stdout().lock());
    let items = dump.write(&mut output).map_err(|why| failed("standard output", &why))?;
    let report = &dump.report;
    for damage in &report.damages {
        say(&format!("gone around: {damage}"));
    }
    if report.cut_bytes > 0 {
        say(&format!("{} bytes of an incomplete last write left out", report.cut_bytes));
    }
    say(&format!("{items} items"));
    if report.dropped_items > 0 {
        let dropped = report.dropped_items;
        return Err(Exit::failure(format!("{dropped} items found no room in memory")));
    }
    Ok(())
}

fn run_repair(parser: Parser) -> Ended {
    let (path, _) = directory_of(parser, None)?;
    let disk: Arc<dyn Disk> = Arc::new(Watched::new(open(&path, Access::Exclusive)?));
    let now = Clock::start().now();
    match repair(disk, now, random()).map_err(|why| refused(&why))? {
        Repaired::Intact(report) if report.cut_bytes > 0 => print(&format!(
            "nothing to repair; the next start cuts off {} bytes of an incomplete last write\n",
            report.cut_bytes
        )),
        Repaired::Intact(_) => print("nothing to repair\n"),
        Repaired::Salvaged { report, items, aside } => {
            let mut text = String::new();
            for damage in &report.damages {
                text.push_str(&format!("gone around: {damage}\n"));
            }
            for name in aside {
                text.push_str(&format!("kept as {name}\n"));
            }
            if report.dropped_items > 0 {
                text.push_str(&format!("dropped for want of memory: {}\n", report.dropped_items));
            }
            text.push_str(&format!("{items} items in a new snapshot\n"));
            print(&text)
        }
    }
}

fn run_backup(mut parser: Parser) -> Ended {
    let (mut from, mut to) = (None, None);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Long("from") => from = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("to") => to = Some(PathBuf::from(parser.value().map_err(usage)?)),
            other => return Err(usage(other.unexpected())),
        }
    }
    let (Some(from), Some(to)) = (from, to) else {
        return Err(usage("name both directories, --from and --to"));
    };
    let source = open(&from, Access::Beside)?;
    let target = make_like(&from, &to).and_then(|()| RealDisk::open(&to, Access::Exclusive));
    let target = target.map_err(|why| failed(&to.display().to_string(), &why))?;
    let copied = backup(&source, &target).map_err(|why| refused(&why))?;
    let (items, changes) = (copied.checked.snapshot_items, copied.checked.log_changes);
    let (bytes, what) = (copied.bytes, "copied and verified");
    print(&format!(
        "{bytes} bytes {what}: {items} items in the snapshot, {changes} changes behind it\n"
    ))
}

/// Makes a directory that belongs to whom another one belongs to.
fn make_like(from: &Path, to: &Path) -> io::Result<()> {
    if to.exists() {
        return Ok(());
    }
    system::directory_builder(0o700).create(to)?;
    match Owner::of(&fs::metadata(from)?).give_path(to) {
        // Only root can give things away; who is not keeps them.
        Err(why) if why.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        other => other,
    }
}

/// Tells something on standard error, which may be closed.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Where the items of `load` come from.
enum Source {
    Server,
    File(PathBuf),
    StandardInput,
}

/// Passwords are not for command lines, which everybody on the machine can read.
const PASSWORD_FROM: &str = "DISTCACHED_FROM_PASSWORD";
const PASSWORD_TO: &str = "DISTCACHED_TO_PASSWORD";

/// What the command line of `load` says.
struct LoadArguments {
    to: Peer,
    from: Peer,
    source: Source,
}

fn load_arguments(mut parser: Parser) -> Result<LoadArguments, Exit> {
    let (mut to, mut from, mut source) = (PeerDraft::default(), PeerDraft::default(), None);
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Arg::Long(name) => {
                let name = name.to_owned();
                let (draft, what) = match (name.strip_prefix("to"), name.strip_prefix("from")) {
                    (Some(what), _) => (&mut to, what),
                    (_, Some(what)) => (&mut from, what),
                    _ => return Err(usage(Arg::Long(&name).unexpected())),
                };
                draft.take(&name, what, &mut parser)?;
            }
            Arg::Value(word) if source.is_none() => {
                source = Some(if word == "-" {
                    Source::StandardInput
                } else {
                    Source::File(PathBuf::from(word))
                });
            }
            other => return Err(usage(other.unexpected())),
        }
    }
    let (to, from) = (to.finish("to", PASSWORD_TO)?, from.finish("from", PASSWORD_FROM)?);
    let to = to.ok_or_else(|| usage("--to HOST:PORT is missing"))?;
    let source = match (&from, source) {
        (Some(_), None) => Source::Server,
        (Some(_), Some(_)) => return Err(usage("items come from a file or from --from, not both")),
        (None, source) => source.unwrap_or(Source::StandardInput),
    };
    Ok(LoadArguments { to, from: from.unwrap_or_default(), source })
}

/// What has been read about one server.
#[derive(Default)]
struct PeerDraft {
    peer: Peer,
    given: bool,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl PeerDraft {
    /// Follows an option: what is behind `--to` or `--from`.
    fn take(&mut self, name: &str, what: &str, parser: &mut Parser) -> Result<(), Exit> {
        self.given = true;
        let value = parser.value().map_err(usage)?;
        let text = |value: OsString| {
            value.into_string().map_err(|value| usage(format!("--{name}: {}", value.display())))
        };
        match what {
            "" => self.peer.address = text(value)?,
            "-user" => self.peer.user = Some(text(value)?),
            "-tls-ca" => self.peer.tls_ca = Some(value.into()),
            "-tls-cert" => self.cert = Some(value.into()),
            "-tls-key" => self.key = Some(value.into()),
            _ => return Err(usage(Arg::Long(name).unexpected())),
        }
        Ok(())
    }

    /// The server, if one was named.
    fn finish(self, side: &str, password: &str) -> Result<Option<Peer>, Exit> {
        let Self { mut peer, given, cert, key } = self;
        if given && peer.address.is_empty() {
            return Err(usage(format!("--{side} HOST:PORT is missing")));
        }
        peer.tls_cert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            _ => return Err(usage(format!("--{side}-tls-cert and --{side}-tls-key: give both"))),
        };
        if peer.tls_cert.is_some() && peer.tls_ca.is_none() {
            return Err(usage(format!("--{side}-tls-cert: TLS needs --{side}-tls-ca=FILE")));
        }
        if let Some(user) = &peer.user {
            let missing = |_| usage(format!("the password of {user} is expected in {password}"));
            peer.password = Some(std::env::var(password).map_err(missing)?);
        }
        Ok(given.then_some(peer))
    }
}

fn run_load(parser: Parser) -> Ended {
    let LoadArguments { to, from, source } = load_arguments(parser)?;
    let mut loader = load::Loader::connect(&to).map_err(|why| failed(&to.address, &why))?;
    let bar = ProgressBar::new(0);
    let loaded = match source {
        Source::Server => {
            bar.set_style(style("{bar:40} {pos}/{len} items, {eta} left"));
            migrate::migrate(&from, &mut loader, &bar)
        }
        Source::File(path) => File::open(&path)
            .and_then(|file| Ok((file.metadata()?.len(), file)))
            .map_err(|why| load::Trouble::Source(format!("{}: {why}", path.display())))
            .and_then(|(bytes, file)| {
                bar.set_length(bytes);
                bar.set_style(style("{bar:40} {bytes}/{total_bytes}, {eta} left"));
                load_stream(file, &mut loader, &bar)
            }),
        Source::StandardInput => {
            bar.set_style(style("{spinner} {bytes}"));
            load_stream(io::stdin().lock(), &mut loader, &bar)
        }
    };
    bar.finish_and_clear();
    let loaded = loaded.and_then(|()| loader.finish());
    let load::Loaded { items, met, refused, first_refusal } = loader.loaded();
    loaded.map_err(|why| explain(&to.address, items, why))?;
    say(&format!("{} items stored", items.saturating_sub(refused).saturating_sub(met)));
    if met > 0 {
        say(&format!("{met} of the dump are to be added only, and were there already"));
    }
    match first_refusal {
        None => Ok(()),
        Some(why) => {
            Err(Exit::failure(format!("{refused} items refused; the first answer was {why:?}")))
        }
    }
}

fn load_stream(
    input: impl Read,
    loader: &mut load::Loader,
    bar: &ProgressBar,
) -> Result<(), load::Trouble> {
    let mut stream = stream::Stream::new(BufReader::with_capacity(OUTPUT_BYTES, input));
    while let Some(command) = stream.next()? {
        loader.push(&command)?;
        bar.set_position(stream.bytes_read());
    }
    Ok(())
}

fn explain(to: &str, items: u64, why: load::Trouble) -> Exit {
    let (code, why) = match why {
        load::Trouble::Target(why) => (os::EX_IOERR, format!("{to}: {why}")),
        load::Trouble::Source(why) => (os::EX_IOERR, why),
        load::Trouble::Stream(why) => (os::EX_DATAERR, why),
    };
    Exit { code, message: format!("{why}\nnot complete: {items} items were sent by then") }
}
