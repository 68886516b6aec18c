//! D1, by example: kinds of state that a random schedule cannot judge, as stale marks, win flags,
//! a flush that is still to come, numbers that wrap. Each case runs twice, once with a kill and a
//! restart between its two parts; the replies to the second part must not differ.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::client::REPLY_TIME_MAX;
use crate::disk::Scratch;
use crate::model::Dialect;
use crate::options::Options;
use crate::server::{Server, Spec};

/// What is sent before the restart and after it, and how long after the first part the second
/// begins.
struct Case {
    name: &'static str,
    before: &'static str,
    after: &'static str,
    wait_s: u64,
}

const CASES_AT_ONCE: usize = 8;

const fn case(name: &'static str, before: &'static str, after: &'static str) -> Case {
    Case { name, before, after, wait_s: 0 }
}

const CASES: &[Case] = &[
    case("set, flags", "set a 77 0 2\r\nhi\r\n", "get a\r\nmg a v f s t\r\n"),
    case("stale", "ms a 2\r\nhi\r\nmd a I T300\r\n", "mg a v f\r\nmg a v f\r\n"),
    case("stale, won", "ms a 2\r\nhi\r\nmd a I T300\r\nmg a v\r\n", "mg a v f\r\nmg a v f\r\n"),
    case("vivified", "mg a N300 v\r\n", "mg a v f\r\nmg a N300 v\r\n"),
    case("recached", "set a 0 50 1\r\nx\r\nmg a R60 v\r\n", "mg a R60 v\r\nmg a v\r\n"),
    case("value cleared", "ms a 2 F5\r\nhi\r\nmd a x\r\n", "mg a v f\r\n"),
    case("flush, then set", "set a 0 0 1\r\nx\r\nflush_all\r\nset b 0 0 1\r\ny\r\n", "get a b\r\n"),
    Case {
        name: "flush to come",
        before: "set a 0 0 1\r\nx\r\nflush_all 2\r\n",
        after: "get a\r\nset b 0 0 1\r\ny\r\nget b\r\n",
        wait_s: 4,
    },
    case("flush far away", "set a 0 0 1\r\nx\r\nflush_all 1000\r\n", "get a\r\n"),
    case("negative expiry", "set a 0 0 1\r\nx\r\nset a 0 -1 1\r\ny\r\n", "get a\r\n"),
    Case {
        name: "expired",
        before: "set a 0 1 1\r\nx\r\nset b 0 0 1\r\ny\r\n",
        after: "get a b\r\n",
        wait_s: 3,
    },
    Case {
        name: "touched",
        before: "set a 0 2 1\r\nx\r\ntouch a 1000\r\nset b 0 1000 1\r\ny\r\ntouch b 1\r\n",
        after: "get a b\r\n",
        wait_s: 4,
    },
    Case {
        name: "gat",
        before: "set a 0 2 1\r\nx\r\ngat 1000 a\r\n",
        after: "get a\r\n",
        wait_s: 4,
    },
    case(
        "wrapped",
        "set n 0 0 20\r\n18446744073709551615\r\nincr n 2\r\n",
        "get n\r\nincr n 1\r\n",
    ),
    case("shorter number", "set n 0 0 2\r\n10\r\ndecr n 1\r\n", "get n\r\nincr n 1\r\n"),
    case("ma vivifies", "ma n N300 J13 v\r\nma n D4 v\r\n", "mg n v f\r\n"),
    case(
        "add, replace, append, prepend",
        "add a 1 0 1\r\nb\r\nadd a 2 0 1\r\nc\r\nappend a 0 0 1\r\nd\r\nprepend a 0 0 1\r\ne\r\n\
         replace b 0 0 1\r\nf\r\nreplace a 3 0 1\r\ng\r\nappend a 0 0 1\r\nh\r\n",
        "get a b\r\n",
    ),
    case("deleted", "set a 0 0 1\r\nx\r\ndelete a\r\nset b 0 0 1\r\ny\r\nmd b\r\n", "get a b\r\n"),
    case("no reply", "set a 0 0 1 noreply\r\nx\r\nms b 1 q\r\ny\r\nmn\r\n", "get a b\r\n"),
    case("empty value", "set a 5 0 0\r\n\r\n", "get a\r\n"),
    case("binary key", "ms AAECDQog 3 b F9\r\na\r\n\r\n", "mg AAECDQog b v f k\r\n"),
    case("value with line ends", "set a 0 0 6\r\nEND\r\n\0\r\n", "get a\r\n"),
];

/// Runs the rig.
pub(crate) fn run(options: &Options) -> Result<bool> {
    println!("| server | fsync | cases | same after the restart | result |\n|---|---|---|---|---|");
    let mut kept = true;
    for &policy in &options.policies {
        let spec = Spec::new(options, &options.server, policy, &options.work);
        if spec.dialect == Dialect::Resp {
            return Err("states: speaks memcached's text only".into());
        }
        let mut same = 0;
        for cases in CASES.chunks(CASES_AT_ONCE) {
            let results: Vec<Result<bool>> = std::thread::scope(|scope| {
                let (spec, work) = (&spec, options.work.as_path());
                let run = |case| scope.spawn(move || is_same(case, spec, work));
                let running: Vec<_> = cases.iter().map(run).collect();
                let panicked = |_| Err("a thread of the rig panicked".into());
                running.into_iter().map(|case| case.join().unwrap_or_else(panicked)).collect()
            });
            for result in results {
                same += usize::from(result?);
            }
        }
        kept &= same == CASES.len();
        println!(
            "| {} | {} | {} | {same} | {} |",
            spec.name(),
            spec.policy.name(),
            CASES.len(),
            if same == CASES.len() { "kept" } else { "BROKEN" },
        );
    }
    Ok(kept)
}

/// Whether a restart makes no difference to a case.
fn is_same(case: &Case, spec: &Spec, work: &Path) -> Result<bool> {
    let scratch = Scratch::new(work)?;
    let spec = spec.clone().logging_to(&scratch.0);
    let expected = replies(case, &spec, &scratch, false)?;
    let found = replies(case, &spec, &scratch, true)?;
    if expected != found {
        let (expected, found) = (expected.escape_ascii(), found.escape_ascii());
        eprintln!("  {}: without a restart {expected}; with one {found}", case.name);
    }
    Ok(expected == found)
}

/// The replies to the second part of a case.
fn replies(case: &Case, spec: &Spec, scratch: &Scratch, restart: bool) -> Result<Vec<u8>> {
    let directory = scratch.fresh("data")?;
    let mut server = Server::start(spec, &directory)?;
    exchange(&server, case.before)?;
    let begin = Instant::now();
    if restart {
        server.kill();
        drop(server);
        server = Server::start(spec, &directory)?;
    }
    sleep(Duration::from_secs(case.wait_s).saturating_sub(begin.elapsed()));
    exchange(&server, case.after)
}

/// Everything that is answered to these commands.
fn exchange(server: &Server, commands: &str) -> Result<Vec<u8>> {
    let mut socket = TcpStream::connect(server.address)?;
    socket.set_read_timeout(Some(REPLY_TIME_MAX))?;
    socket.write_all(commands.as_bytes())?;
    // Not all servers answer once their client has closed its half, so they are told to.
    socket.write_all(b"quit\r\n")?;
    let mut replies = Vec::new();
    socket.read_to_end(&mut replies)?;
    // An error here means that the server was first.
    let _ = socket.shutdown(Shutdown::Both);
    Ok(replies)
}
