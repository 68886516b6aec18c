//! `distcache ring` and `owner`: where keys go. Arithmetic on the list of servers; none of them is
//! asked.

use crate::exit::{Failure, Status};
use distcache::client::{Client, Node, Ring, RingKind};
use std::io::Write;

/// Keys that `ring` places, unless told otherwise.
const KEYS_DEFAULT: u32 = 100_000;

/// The server of each key.
pub(crate) fn owners(
    client: &Client,
    keys: &[&str],
    out: &mut impl Write,
) -> Result<Status, Failure> {
    for key in keys {
        let owner = client.server_of(key).map(|node| node.name()).unwrap_or_default();
        writeln!(out, "{key} {owner}")?;
    }
    Ok(Status::Done)
}

/// How evenly a ring spreads keys, and how many move when one server comes or goes.
pub(crate) fn balance(
    servers: &[&str],
    kind: &RingKind,
    arguments: &[&str],
    out: &mut impl Write,
) -> Result<Status, Failure> {
    let count: u32 = match arguments {
        [] => KEYS_DEFAULT,
        [count] => count.parse().map_err(|_| format!("KEYS: {count:?} is no number of keys"))?,
        _ => return Err(crate::commands::not_understood(&["ring"])),
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
    writeln!(out, "{:<30} {:>6} {:>6} {:>8} {:>8}", "server", "weight", "points", "keys", "fair")?;
    let (mut most, mut least) = (0.0f64, f64::MAX);
    for (at, node) in nodes.iter().enumerate() {
        let points = ring.points().iter().filter(|point| point.server as usize == at).count();
        let keys = percent(now.iter().filter(|owner| **owner == at).count() as f64);
        let fair = 100.0 * f64::from(node.weight()) / f64::from(weights);
        (most, least) = (most.max(keys / fair), least.min(keys / fair));
        let name = node.name();
        writeln!(out, "{name:<30} {:>6} {points:>6} {keys:>7.2}% {fair:>7.2}%", node.weight())?;
    }
    writeln!(out, "{count} keys: the servers own {least:.2} to {most:.2} times their fair share")?;
    let added = [nodes.clone(), vec![Node::tcp("one-more.example", 11211)]].concat();
    let moved = |after: &[usize]| now.iter().zip(after).filter(|(a, b)| a != b).count() as f64;
    let with = percent(moved(&owners(&Ring::new(kind, &added))));
    writeln!(
        out,
        "one more server moves {with:.2}% (1/{} is {:.2}%)",
        added.len(),
        100.0 / added.len() as f64
    )?;
    if nodes.len() > 1 {
        let without = percent(moved(&owners(&Ring::new(kind, &nodes[..nodes.len() - 1]))));
        let (count, fair) = (nodes.len(), 100.0 / nodes.len() as f64);
        writeln!(out, "without the last one {without:.2}% move (1/{count} is {fair:.2}%)")?;
    }
    Ok(Status::Done)
}
