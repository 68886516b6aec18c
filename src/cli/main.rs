//! The command-line tool `distcache`. Carries out commands and prints; the client does the work.

mod clock;
mod options;
mod top;

use distcache::client::{Client, Many, Node, Ring, RingKind};
use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

type Failure = Box<dyn std::error::Error>;

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
    let Some(options) = options::parse(lexopt::Parser::from_env())? else { return Ok(true) };
    let servers: Vec<&str> = options.servers.split(',').collect();
    let words: Vec<&str> = options.command.iter().map(String::as_str).collect();
    let Some((command, arguments)) = words.split_first() else {
        return Err("say what to do; --help lists the commands".into());
    };
    if *command == "ring" {
        return ring(&servers, &options.config.ring, arguments);
    }
    if *command == "top" {
        let seconds = match arguments {
            [] => "2",
            [seconds] => seconds,
            _ => return Err("top takes one number of seconds".into()),
        };
        let told = top::Options::new(seconds, options.once)?;
        return top::run(&servers, &options.config, &told);
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
fn ring(servers: &[&str], kind: &RingKind, arguments: &[&str]) -> Result<bool, Failure> {
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
