//! Commands that a client carries out: one call or several, and what is printed of their results.
//! Each ends with a status; what fails for one key is said, and the other keys go on.

use crate::exit::{Failure, Status, complain};
use crate::ring;
use distcache::client::{Cas, Client, Error, Expiry, Node, PerServer};
use serde::{Serialize, Serializer};
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::time::Duration;

type Outcome = Result<Status, Failure>;

/// How often `ping` asks; the fastest answer counts.
const PINGS: usize = 3;

/// Carries out a command that needs a client.
pub(crate) fn run(client: &Client, words: &[&str], out: &mut impl Write) -> Outcome {
    match words {
        ["get", keys @ ..] if !keys.is_empty() => get(client, keys, out),
        ["gets", keys @ ..] if !keys.is_empty() => gets(client, keys, out),
        ["inspect", keys @ ..] if !keys.is_empty() => inspect(client, keys, out),
        ["delete", keys @ ..] if !keys.is_empty() => delete(client, keys),
        ["owner", keys @ ..] if !keys.is_empty() => ring::owners(client, keys, out),
        ["set", key, value] => set(client, key, value, Expiry::Never),
        ["set", key, value, time] => set(client, key, value, seconds(time)?),
        ["add", key, value] => add(client, key, value, Expiry::Never),
        ["add", key, value, time] => add(client, key, value, seconds(time)?),
        ["replace", key, value] => replace(client, key, value, Expiry::Never),
        ["replace", key, value, time] => replace(client, key, value, seconds(time)?),
        ["append", key, value] => {
            met(client.append(key, &self::value(value)?.0)?, key, "not found")
        }
        ["prepend", key, value] => {
            met(client.prepend(key, &self::value(value)?.0)?, key, "not found")
        }
        ["cas", key, token, value] => cas(client, key, token, value, Expiry::Never),
        ["cas", key, token, value, time] => cas(client, key, token, value, seconds(time)?),
        ["incr", key] => show(client.incr_or(key, 1, 1)?, out),
        ["incr", key, delta] => {
            let delta = number("DELTA", delta)?;
            show(client.incr_or(key, delta, delta)?, out)
        }
        ["decr", key] => show(client.decr_or(key, 1, 0)?, out),
        ["decr", key, delta] => show(client.decr_or(key, number("DELTA", delta)?, 0)?, out),
        ["touch", key, time] => met(client.touch(key, seconds(time)?)?, key, "not found"),
        ["ping"] => ping(client, out),
        ["version"] => each(client.version(), out, |version| version),
        ["stats", which @ ..] => stats(client, &which.join(" "), out),
        ["flush"] => each(client.flush_all(None), out, |()| "flushed".to_owned()),
        _ => Err(not_understood(words)),
    }
}

/// What to say to a command that is none, or has the wrong arguments.
pub(crate) fn not_understood(words: &[&str]) -> Failure {
    let name = words.first().copied().unwrap_or_default();
    match crate::help::find(name) {
        Some(command) => {
            let usage = format!("{name} {}", command.arguments);
            format!("usage: {}; distcache help {name} says more", usage.trim_end()).into()
        }
        None => format!("{name:?} is no command; distcache help lists them").into(),
    }
}

fn number(what: &str, text: &str) -> Result<u64, Failure> {
    text.parse().map_err(|_| format!("{what}: {text:?} is no number from 0 upwards").into())
}

fn seconds(text: &str) -> Result<Expiry, Failure> {
    Ok(Duration::from_secs(number("SECONDS", text)?).into())
}

/// Bytes to store, as they are.
struct Bytes(Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            // A string of digits would carry a mark, which python-memcached refuses.
            Ok(text) => match text.parse::<i128>() {
                Ok(number) if number.to_string() == text => serializer.serialize_i128(number),
                _ => serializer.serialize_str(text),
            },
            Err(_) => serializer.serialize_bytes(&self.0),
        }
    }
}

/// The word itself; `-` is what standard input holds.
fn value(word: &str) -> Result<Bytes, Failure> {
    let mut bytes = Vec::new();
    match word {
        "-" => drop(std::io::stdin().lock().read_to_end(&mut bytes)?),
        _ => bytes.extend_from_slice(word.as_bytes()),
    }
    Ok(Bytes(bytes))
}

/// Nothing is said of a condition that was met.
fn met(met: bool, key: &str, otherwise: &str) -> Outcome {
    if met {
        return Ok(Status::Done);
    }
    complain(key, otherwise);
    Ok(Status::Missing)
}

fn show(number: u64, out: &mut impl Write) -> Outcome {
    writeln!(out, "{number}")?;
    Ok(Status::Done)
}

fn set(client: &Client, key: &str, value: &str, expiry: Expiry) -> Outcome {
    client.set_with(key, self::value(value)?, expiry)?;
    Ok(Status::Done)
}

fn add(client: &Client, key: &str, value: &str, expiry: Expiry) -> Outcome {
    met(client.add_with(key, self::value(value)?, expiry)?, key, "exists already")
}

fn replace(client: &Client, key: &str, value: &str, expiry: Expiry) -> Outcome {
    met(client.replace_with(key, self::value(value)?, expiry)?, key, "not found")
}

fn cas(client: &Client, key: &str, token: &str, value: &str, expiry: Expiry) -> Outcome {
    let token = number("TOKEN", token)?;
    match client.cas_with(key, self::value(value)?, token, expiry)? {
        Cas::Stored => Ok(Status::Done),
        Cas::Changed => met(false, key, "was changed meanwhile"),
        Cas::Missing => met(false, key, "not found"),
    }
}

/// What became of each key; those that are missing or failed are named.
fn for_each_key<T>(
    results: impl IntoIterator<Item = (impl AsRef<str>, Result<Option<T>, Error>)>,
    mut print: impl FnMut(&str, T) -> std::io::Result<()>,
) -> Outcome {
    let mut worst = Status::Done;
    for (key, result) in results {
        let key = key.as_ref();
        match result {
            Ok(Some(found)) => print(key, found)?,
            Ok(None) => worst = worst.max(met(false, key, "not found")?),
            Err(error) => {
                complain(key, &error);
                worst = worst.max((&error).into());
            }
        }
    }
    Ok(worst)
}

/// Bytes as they are, so that an image can go to a file.
fn get(client: &Client, keys: &[&str], out: &mut impl Write) -> Outcome {
    for_each_key(keys.iter().map(|key| (key, client.get_raw(key))), |_, raw| {
        out.write_all(&raw.bytes)?;
        out.write_all(b"\n")
    })
}

fn gets(client: &Client, keys: &[&str], out: &mut impl Write) -> Outcome {
    for_each_key(keys.iter().map(|key| (key, client.get_raw_versioned(key))), |_, found| {
        write!(out, "{} ", found.token)?;
        out.write_all(&found.value)?;
        out.write_all(b"\n")
    })
}

fn delete(client: &Client, keys: &[&str]) -> Outcome {
    let deleted = client.delete_many(keys).into_iter();
    let deleted = deleted.map(|result| result.map(|deleted| deleted.then_some(())));
    for_each_key(keys.iter().zip(deleted), |_, ()| Ok(()))
}

fn inspect(client: &Client, keys: &[&str], out: &mut impl Write) -> Outcome {
    for_each_key(keys.iter().map(|key| (key, client.inspect(key))), |key, item| {
        let ttl = item.ttl_seconds.map_or("never".into(), |seconds| format!("in {seconds} s"));
        let stale = if item.stale { ", stale" } else { "" };
        writeln!(
            out,
            "{key} {} bytes, flags {}, token {}, expires {ttl}{stale}",
            item.size, item.flags, item.token
        )
    })
}

/// Prints what each server says.
fn each<T>(answers: PerServer<T>, out: &mut impl Write, text: impl Fn(T) -> String) -> Outcome {
    let mut worst = Status::Done;
    for (node, answer) in answers {
        match answer {
            Ok(answer) => writeln!(out, "{node} {}", text(answer))?,
            Err(error) => {
                writeln!(out, "{node} FAILED {error}")?;
                worst = worst.max((&error).into());
            }
        }
    }
    Ok(worst)
}

fn stats(client: &Client, which: &str, out: &mut impl Write) -> Outcome {
    each(client.stats(which), out, |stats| {
        stats.iter().fold(String::new(), |mut text, (name, value)| {
            let _ = write!(text, "\n    {name} {value}");
            text
        })
    })
}

/// Any failure of a server counts.
fn ping(client: &Client, out: &mut impl Write) -> Outcome {
    let mut fastest: Vec<(Node, Result<Duration, Error>)> = client.ping();
    for _ in 1..PINGS {
        for ((_, best), (_, time)) in fastest.iter_mut().zip(client.ping()) {
            match (&best, time) {
                (Ok(so_far), Ok(time)) => *best = Ok(time.min(*so_far)),
                (Ok(_), Err(error)) => *best = Err(error),
                (Err(_), _) => {}
            }
        }
    }
    each(fastest, out, |fastest| format!("up, {:.3} ms", fastest.as_secs_f64() * 1e3))
}
