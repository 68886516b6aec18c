//! Who owns which key. Goal: every owner is the one that libmemcached, twemproxy and spymemcached
//! compute. Method: compare with lines frozen from the first two (`protocol-tests/clients/ring` has
//! the programs that print them, and CI compares again), and with the arithmetic of the third done
//! the long way. Also: how evenly keys are spread, and how many move.

#![cfg(feature = "client")]

use distcache::client::{KeyHash, Node, Ring, RingKind};
use std::collections::BTreeMap;

const KEYS: usize = 200_000;

/// The configuration that a frozen line names.
struct Line<'a> {
    kind: RingKind,
    nodes: Vec<Node>,
    tagged: bool,
    digest: &'a str,
    owners: Vec<usize>,
}

fn parse(line: &str) -> Line<'_> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, kind, hash, servers, weights, ports, digest] = words[..7] else { panic!("{line}") };
    let hash: KeyHash = hash.parse().unwrap();
    let kind = match kind {
        "weighted" => RingKind::Weighted,
        "libmemcached_spy" => RingKind::LibmemcachedSpy,
        "consistent" => RingKind::Consistent(hash),
        "modula" => RingKind::Modula(hash),
        "twemproxy" => RingKind::Twemproxy(hash),
        _ => panic!("{line}"),
    };
    let network = if matches!(kind, RingKind::Twemproxy(_)) { "127.10" } else { "10.0" };
    let node = |at: u32| {
        let port = 11211 + if ports == "mixed" { at % 3 } else { 0 };
        let node = Node::tcp(format!("{network}.{}.{}", at / 250, at % 250 + 1), port as u16);
        match weights {
            "mixed" => node.with_weight(1 + at * 7 % 5),
            "named" => node.with_name(format!("server-{at}")),
            _ => node,
        }
    };
    Line {
        kind,
        nodes: (0..servers.parse().unwrap()).map(node).collect(),
        tagged: weights == "tagged",
        digest,
        owners: words[7..].iter().map(|word| word.parse().unwrap()).collect(),
    }
}

fn digest(owners: impl Iterator<Item = usize>) -> String {
    let step = |digest: u64, owner| (digest ^ owner as u64).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", owners.fold(0xcbf2_9ce4_8422_2325, step))
}

fn check(vectors: &str, rings_expected: usize) {
    let mut rings = 0;
    for line in vectors.lines().filter(|line| line.starts_with("ring ")) {
        let frozen = parse(line);
        let ring = Ring::new(frozen.kind, &frozen.nodes);
        // What a hash tag leaves of "user:{NUMBER}:profile".
        let key = |number: usize| match frozen.tagged {
            true => number.to_string(),
            false => format!("key-{number}"),
        };
        let owner = |number: usize| ring.owner(key(number).as_bytes()).unwrap();
        let first: Vec<usize> = (0..frozen.owners.len()).map(owner).collect();
        assert_eq!(first, frozen.owners, "{line}");
        assert_eq!(digest((0..KEYS).map(owner)), frozen.digest, "{line}");
        rings += 1;
    }
    assert_eq!(rings, rings_expected);
}

#[test]
fn owners_are_those_of_libmemcached() {
    check(include_str!("vectors/ring_libmemcached.txt"), 144);
}

#[test]
fn owners_are_those_of_twemproxy() {
    check(include_str!("vectors/ring_twemproxy.txt"), 62);
}

#[test]
fn hashes_are_those_of_libhashkit() {
    let mut compared = 0;
    let vectors = include_str!("vectors/ring_libmemcached.txt");
    for line in vectors.lines().filter(|line| line.starts_with("hash ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let byte = |at: usize| u8::from_str_radix(&words[2][at..at + 2], 16).unwrap();
        let key: Vec<u8> = (0..words[2].len()).step_by(2).map(byte).collect();
        let hash: KeyHash = words[1].parse().unwrap();
        assert_eq!(format!("{:08x}", hash.hash(&key)), words[3], "{line}");
        compared += 1;
    }
    assert_eq!(compared, 360);
}

/// The test vectors that are known from elsewhere, by hand.
#[test]
fn owners_in_clear() {
    let keys = ["foo", "bar", "baz", "a", "key:1", "user:1000", "hello world", "\u{e9}"];
    let nodes = |text: [&str; 4]| text.map(|node| node.parse().unwrap()).to_vec();
    let plain = nodes(["10.0.1.1", "10.0.1.2", "10.0.1.3", "10.0.1.4"]);
    let ports = nodes(["10.0.1.1:11211", "10.0.1.2:11212", "10.0.1.3:11213", "10.0.1.4:11214"]);
    let one_at_a_time = RingKind::Consistent(KeyHash::OneAtATime);
    for (kind, nodes, expected) in [
        (RingKind::Weighted, &plain, [2, 3, 3, 2, 3, 1, 0, 3]),
        (RingKind::Weighted, &ports, [1, 3, 1, 0, 3, 0, 1, 1]),
        (one_at_a_time, &plain, [2, 0, 1, 1, 1, 1, 2, 2]),
        (RingKind::Consistent(KeyHash::Md5), &plain, [3, 1, 1, 2, 0, 1, 3, 1]),
        (RingKind::LibmemcachedSpy, &plain, [1, 3, 2, 0, 2, 0, 3, 3]),
    ] {
        let ring = Ring::new(kind, nodes);
        let owners = keys.map(|key| ring.owner(key.as_bytes()).unwrap());
        assert_eq!(owners, expected, "{kind:?}");
    }
    let first = Ring::new(RingKind::Weighted, &plain).points()[0];
    assert_eq!((first.value, first.server), (0x0020_c90c, 2));
}

/// spymemcached's KetamaNodeLocator as it is written: a sorted map of points, where the server that
/// comes later takes a point, and `ceilingEntry` with a return to the first.
#[test]
fn owners_are_those_of_spymemcached() {
    let md5 = |text: &str| {
        // The four numbers of a digest are those of four rings' worth of points: ask the key hash.
        KeyHash::Md5.hash(text.as_bytes())
    };
    let nodes: Vec<Node> = (1..=25).map(|at| Node::tcp(format!("10.0.1.{at}"), 11211)).collect();
    for (kind, port) in
        [(RingKind::Spymemcached, ":11211"), (RingKind::SpymemcachedLibmemcached, "")]
    {
        let ring = Ring::new(kind, &nodes);
        // 160 points for each, where C's rounding leaves 156 at 25 servers.
        assert_eq!(ring.points().len(), 25 * 160);
        let points: BTreeMap<u32, u32> =
            ring.points().iter().map(|point| (point.value, point.server)).collect();
        assert_eq!(points.len(), ring.points().len(), "each place once");
        for (server, node) in nodes.iter().enumerate() {
            for at in 0..40 {
                let value = md5(&format!("{}{port}-{at}", node.host()));
                assert_eq!(points.get(&value), Some(&(server as u32)), "{kind:?}");
            }
        }
        for number in 0..10_000 {
            let key = format!("key-{number}");
            let ceiling = points.range(md5(&key)..).next().or(points.iter().next());
            assert_eq!(ring.owner(key.as_bytes()), ceiling.map(|(_, server)| *server as usize));
        }
    }
}

#[test]
fn without_servers_nobody_owns_and_one_owns_all() {
    assert_eq!(Ring::new(RingKind::Weighted, &[]).owner(b"a"), None);
    let one = Ring::new(RingKind::Weighted, &[Node::tcp("a", 1)]);
    assert_eq!((one.owner(b"a"), one.owners(b"a")), (Some(0), vec![0]));
    assert_eq!(one.shares(), [1.0]);
}

#[test]
fn a_server_that_comes_or_goes_moves_only_its_own_keys() {
    let nodes: Vec<Node> = (1..=11).map(|at| Node::tcp(format!("10.0.0.{at}"), 11211)).collect();
    for kind in [
        RingKind::Weighted,
        RingKind::Consistent(KeyHash::OneAtATime),
        RingKind::Spymemcached,
        RingKind::Twemproxy(KeyHash::Fnv1a64),
    ] {
        let (ten, eleven) = (Ring::new(kind, &nodes[..10]), Ring::new(kind, &nodes));
        let mut moved = 0;
        for number in 0..20_000 {
            let key = format!("key-{number}");
            let (before, after) = (ten.owner(key.as_bytes()), eleven.owner(key.as_bytes()));
            if before != after {
                assert_eq!(after, Some(10), "{kind:?}: keys move to the new server only");
                moved += 1;
            }
            let order = eleven.owners(key.as_bytes());
            assert_eq!(order.len(), 11);
            assert_eq!(Some(order[0]), after);
            let without = order.into_iter().find(|server| *server != 10);
            assert_eq!(without, before, "{kind:?}: the next on the ring had it before");
        }
        let share = f64::from(moved) / 20_000.0;
        assert!((0.05..0.15).contains(&share), "{kind:?}: {share} moved, about 1/11 expected");
        let shares: f64 = eleven.shares().iter().sum();
        assert!((shares - 1.0).abs() < 1e-9, "{kind:?}: {shares}");
    }
}
