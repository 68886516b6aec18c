//! The command-line tool `distcache`. Reads arguments and prints; the client does the work.

use distcache::client::{Client, Config, KeyHash, Many, Node, Ring, RingKind};
use lexopt::{Arg, ValueExt};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
distcache: asks servers that share keys, as one cache

    distcache [-s SERVERS] [-r RING] [-p PREFIX] [-T MILLISECONDS] COMMAND

Commands:
    get KEY...                 values, one a line
    set KEY VALUE [SECONDS]    store, for ever or so many seconds
    delete KEY...
    incr KEY [DELTA]           also decr; a counter that is missing starts at DELTA (decr: at 0)
    touch KEY SECONDS
    inspect KEY...             size, flags, token, time to live
    owner KEY...               which server owns each key
    ring [KEYS]                balance of KEYS keys (100000) and how many move with a server
    ping                       whether each server answers, and how fast
    version
    stats [WHICH]              general statistics, or settings, items, slabs, ...
    flush                      makes all items of all servers invalid

Options:
    -s, --servers LIST    host:port[:weight],... (else DISTCACHE_SERVERS, else localhost:11211)
    -r, --ring RING       weighted (libmemcached, php, pylibmc; the default), consistent[:HASH],
                          spymemcached, spymemcached-libmemcached, libmemcached-spy,
                          twemproxy[:HASH], modula[:HASH]
    -p, --prefix PREFIX   put before every key
    -T, --timeout MS      longest time for a call (2000)
    -h, --help
    -V, --version
";

type Failure = Box<dyn std::error::Error>;

/// What the options say.
struct Options {
    servers: String,
    config: Config,
    command: Vec<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("distcache: {error}");
            ExitCode::from(64)
        }
    }
}

/// False when a key was missing or a server did not answer.
fn run() -> Result<bool, Failure> {
    let Some(options) = parse(lexopt::Parser::from_env())? else { return Ok(true) };
    let servers: Vec<&str> = options.servers.split(',').collect();
    let words: Vec<&str> = options.command.iter().map(String::as_str).collect();
    let Some((command, arguments)) = words.split_first() else {
        return Err("say what to do; --help lists the commands".into());
    };
    if *command == "ring" {
        return ring(&servers, options.config.ring, arguments);
    }
    let client = Client::with_config(&servers, options.config)?;
    match (*command, arguments) {
        ("get", [_, ..]) => get(&client, arguments),
        ("set", [key, value]) => done(client.set(key, value)),
        ("set", [key, value, seconds]) => {
            done(client.set_with(key, value, Duration::from_secs(seconds.parse()?)))
        }
        ("delete", [_, ..]) => delete(&client, arguments),
        ("incr", [key]) => show(client.incr_or(key, 1, 1)),
        ("incr", [key, delta]) => show(client.incr_or(key, delta.parse()?, delta.parse()?)),
        ("decr", [key]) => show(client.decr_or(key, 1, 0)),
        ("decr", [key, delta]) => show(client.decr_or(key, delta.parse()?, 0)),
        ("touch", [key, seconds]) => {
            found(client.touch(key, Duration::from_secs(seconds.parse()?))?, key)
        }
        ("inspect", [_, ..]) => inspect(&client, arguments),
        ("owner", [_, ..]) => {
            for key in arguments {
                let owner = client.server_of(key).map(|node| node.name()).unwrap_or_default();
                println!("{key} {owner}");
            }
            Ok(true)
        }
        ("ping", []) => ping(&client),
        ("version", []) => each(client.version(), |version| version),
        ("stats", []) => stats(&client, ""),
        ("stats", which) => stats(&client, &which.join(" ")),
        ("flush", []) => each(client.flush_all(None), |()| "flushed".to_owned()),
        _ => Err(format!("{}: not understood; --help lists the commands", words.join(" ")).into()),
    }
}

/// `None` when all was said already.
fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, Failure> {
    let servers = std::env::var("DISTCACHE_SERVERS").unwrap_or_else(|_| "localhost:11211".into());
    let mut options = Options { servers, config: Config::default(), command: Vec::new() };
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('s') | Arg::Long("servers") => options.servers = parser.value()?.string()?,
            Arg::Short('r') | Arg::Long("ring") => {
                options.config.ring = ring_kind(&parser.value()?.string()?)?;
            }
            Arg::Short('p') | Arg::Long("prefix") => {
                options.config.key_prefix = parser.value()?.string()?;
            }
            Arg::Short('T') | Arg::Long("timeout") => {
                let timeout = Duration::from_millis(parser.value()?.parse()?);
                options.config.call_timeout = timeout;
                options.config.connect_timeout = timeout;
                options.config.read_timeout = timeout;
                options.config.write_timeout = timeout;
            }
            Arg::Short('h') | Arg::Long("help") => {
                print!("{USAGE}");
                return Ok(None);
            }
            Arg::Short('V') | Arg::Long("version") => {
                println!("distcache {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Arg::Value(word) => options.command.push(word.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn ring_kind(text: &str) -> Result<RingKind, String> {
    let (name, hash) = text.split_once(':').unwrap_or((text, ""));
    let hash = |default| if hash.is_empty() { Ok(default) } else { hash.parse() };
    Ok(match name {
        "weighted" => RingKind::Weighted,
        "consistent" => RingKind::Consistent(hash(KeyHash::OneAtATime)?),
        "spymemcached" => RingKind::Spymemcached,
        "spymemcached-libmemcached" => RingKind::SpymemcachedLibmemcached,
        "libmemcached-spy" => RingKind::LibmemcachedSpy,
        "twemproxy" => RingKind::Twemproxy(hash(KeyHash::Fnv1a64)?),
        "modula" => RingKind::Modula(hash(KeyHash::OneAtATime)?),
        _ => return Err(format!("{name:?} is no ring; --help lists them")),
    })
}

fn done(result: Result<(), distcache::client::Error>) -> Result<bool, Failure> {
    result?;
    Ok(true)
}

fn show(result: Result<u64, distcache::client::Error>) -> Result<bool, Failure> {
    println!("{}", result?);
    Ok(true)
}

fn found(found: bool, key: &str) -> Result<bool, Failure> {
    if !found {
        eprintln!("{key}: not found");
    }
    Ok(found)
}

/// Bytes as they are, so that an image can go to a file.
fn get(client: &Client, keys: &[&str]) -> Result<bool, Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let mut all = true;
    for key in keys {
        match client.get_raw(key)? {
            Some(raw) => {
                out.write_all(&raw.bytes)?;
                out.write_all(b"\n")?;
            }
            None => all = found(false, key)?,
        }
    }
    Ok(all)
}

fn delete(client: &Client, keys: &[&str]) -> Result<bool, Failure> {
    let deleted: Many<bool> = client.delete_many(keys);
    let mut all = true;
    for (key, deleted) in keys.iter().zip(deleted.all()?) {
        all &= found(deleted, key)?;
    }
    Ok(all)
}

fn inspect(client: &Client, keys: &[&str]) -> Result<bool, Failure> {
    let mut all = true;
    for key in keys {
        let Some(item) = client.inspect(key)? else {
            all = found(false, key)?;
            continue;
        };
        let ttl = item.ttl_seconds.map_or("never".into(), |seconds| format!("in {seconds} s"));
        let stale = if item.stale { ", stale" } else { "" };
        println!(
            "{key} {} bytes, flags {}, token {}, expires {ttl}{stale}",
            item.size, item.flags, item.token
        );
    }
    Ok(all)
}

/// Prints what each server says, and tells whether all did.
fn each<T>(
    answers: Vec<(Node, Result<T, distcache::client::Error>)>,
    text: impl Fn(T) -> String,
) -> Result<bool, Failure> {
    let mut all = true;
    for (node, answer) in answers {
        match answer {
            Ok(answer) => println!("{node} {}", text(answer)),
            Err(error) => {
                println!("{node} FAILED {error}");
                all = false;
            }
        }
    }
    Ok(all)
}

fn stats(client: &Client, which: &str) -> Result<bool, Failure> {
    each(client.stats(which), |stats| {
        stats.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = write!(text, "\n    {name} {value}");
            text
        })
    })
}

/// Asks each server three times; the fastest answer counts, and any failure does.
fn ping(client: &Client) -> Result<bool, Failure> {
    let rounds: Vec<_> = (0..3).map(|_| client.ping()).collect();
    let answers = (0..rounds[0].len()).map(|at| {
        let node = rounds[0][at].0.clone();
        let times: Result<Vec<Duration>, _> =
            rounds.iter().map(|round| round[at].1.clone()).collect();
        (node, times)
    });
    each(answers.collect(), |times| {
        let fastest = times.into_iter().min().unwrap_or_default();
        format!("up, {:.3} ms", fastest.as_secs_f64() * 1e3)
    })
}

/// How evenly a ring spreads keys, and how many move when one server comes or goes.
fn ring(servers: &[&str], kind: RingKind, arguments: &[&str]) -> Result<bool, Failure> {
    let count: u32 = match arguments {
        [] => 100_000,
        [count] => count.parse()?,
        _ => return Err("ring takes one number of keys".into()),
    };
    let nodes: Vec<Node> = servers.iter().map(|server| server.parse()).collect::<Result<_, _>>()?;
    let ring = Ring::new(kind, &nodes);
    let owners = |ring: &Ring| -> Vec<usize> {
        let owner = |number| ring.owner(format!("key-{number}").as_bytes()).unwrap_or(0);
        (0..count).map(owner).collect()
    };
    let now = owners(&ring);
    let percent = |part: f64| 100.0 * part / f64::from(count.max(1));
    let weights: u32 = nodes.iter().map(Node::weight).sum();
    println!("{:<30} {:>6} {:>6} {:>8} {:>8}", "server", "weight", "points", "keys", "fair");
    let (mut most, mut least) = (0.0f64, f64::MAX);
    for (at, node) in nodes.iter().enumerate() {
        let points = ring.points().iter().filter(|point| point.server as usize == at).count();
        let keys = percent(now.iter().filter(|owner| **owner == at).count() as f64);
        let fair = 100.0 * f64::from(node.weight()) / f64::from(weights);
        (most, least) = (most.max(keys / fair), least.min(keys / fair));
        let name = node.name();
        println!("{name:<30} {:>6} {points:>6} {keys:>7.2}% {fair:>7.2}%", node.weight());
    }
    println!("{count} keys: the servers own {least:.2} to {most:.2} times their fair share");
    let added = [nodes.clone(), vec![Node::tcp("one-more.example", 11211)]].concat();
    let moved = |after: &[usize]| now.iter().zip(after).filter(|(a, b)| a != b).count() as f64;
    let with = percent(moved(&owners(&Ring::new(kind, &added))));
    println!(
        "one more server moves {with:.2}% (1/{} is {:.2}%)",
        added.len(),
        100.0 / added.len() as f64
    );
    if nodes.len() > 1 {
        let without = percent(moved(&owners(&Ring::new(kind, &nodes[..nodes.len() - 1]))));
        let (count, fair) = (nodes.len(), 100.0 / nodes.len() as f64);
        println!("without the last one {without:.2}% move (1/{count} is {fair:.2}%)");
    }
    Ok(true)
}
