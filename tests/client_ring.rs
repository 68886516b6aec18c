//! Who owns which key. Goal: every owner is the one that libmemcached, twemproxy, pymemcache and
//! spymemcached compute. Method: compare with lines frozen from all but the last
//! (`protocol-tests/clients/ring` has the programs that print them, and CI compares again), and
//! with the arithmetic of that one done the long way. Also: how evenly keys are spread, how many
//! move, and routers of one's own.

#![cfg(feature = "client")]

use distcache::client::{KeyHash, Node, Ring, RingKind, Router};
use std::collections::BTreeMap;

/// How many keys a frozen digest is of.
const KEYS: usize = 200_000;
const KEYS_OF_PYTHON: usize = 20_000;

/// The configuration that a frozen line names.
struct Line<'a> {
    kind: RingKind,
    nodes: Vec<Node>,
    /// What the keys are like.
    keys: &'a str,
    digest: &'a str,
    owners: Vec<usize>,
}

fn parse(line: &str) -> Line<'_> {
    let words: Vec<&str> = line.split(' ').collect();
    let [_, kind, hash, servers, weights, ports, digest] = words[..7] else { panic!("{line}") };
    let hash: KeyHash = if hash == "-" { KeyHash::Md5 } else { hash.parse().unwrap() };
    let kind = match kind {
        "rendezvous" => RingKind::Rendezvous,
        "jump" => RingKind::Jump(hash),
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
        keys: weights,
        digest,
        owners: words[7..].iter().map(|word| word.parse().unwrap()).collect(),
    }
}

fn digest(owners: impl Iterator<Item = usize>) -> String {
    let step = |digest: u64, owner| (digest ^ owner as u64).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", owners.fold(0xcbf2_9ce4_8422_2325, step))
}

fn check(vectors: &str, keys: usize, rings_expected: usize) {
    let mut rings = 0;
    for line in vectors.lines().filter(|line| line.starts_with("ring ")) {
        let frozen = parse(line);
        let ring = Ring::new(&frozen.kind, &frozen.nodes);
        let key = |number: usize| match frozen.keys {
            // What a hash tag leaves of "user:{NUMBER}:profile".
            "tagged" => number.to_string(),
            "unicode" => format!("cl\u{e9}-\u{436}\u{6f22}\u{1f37a}-{number}"),
            _ => format!("key-{number}"),
        };
        let owner = |number: usize| ring.owner(key(number).as_bytes()).unwrap();
        let first: Vec<usize> = (0..frozen.owners.len()).map(owner).collect();
        assert_eq!(first, frozen.owners, "{line}");
        assert_eq!(digest((0..keys).map(owner)), frozen.digest, "{line}");
        rings += 1;
    }
    assert_eq!(rings, rings_expected);
}

#[test]
fn owners_are_those_of_libmemcached() {
    check(include_str!("vectors/ring_libmemcached.txt"), KEYS, 144);
}

#[test]
fn owners_are_those_of_twemproxy() {
    check(include_str!("vectors/ring_twemproxy.txt"), KEYS, 62);
}

#[test]
fn owners_are_those_of_pymemcache_and_of_the_paper_on_jump() {
    check(include_str!("vectors/ring_python.txt"), KEYS_OF_PYTHON, 28);
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
        let ring = Ring::new(&kind, nodes);
        let owners = keys.map(|key| ring.owner(key.as_bytes()).unwrap());
        assert_eq!(owners, expected, "{kind:?}");
    }
    let first = Ring::new(&RingKind::Weighted, &plain).points()[0];
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
        let ring = Ring::new(&kind, &nodes);
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
    assert_eq!(Ring::new(&RingKind::Weighted, &[]).owner(b"a"), None);
    let one = Ring::new(&RingKind::Weighted, &[Node::tcp("a", 1)]);
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
        let (ten, eleven) = (Ring::new(&kind, &nodes[..10]), Ring::new(&kind, &nodes));
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

/// `Rendezvous` moves nothing but what a server takes or leaves, wherever in the list it is, and
/// the order of the list means nothing; `Jump` says so of the last server alone; `Maglev` nearly
/// does.
#[test]
fn what_moves_without_points() {
    let nodes: Vec<Node> = (1..=11).map(|at| Node::tcp(format!("10.0.0.{at}"), 11211)).collect();
    let keys: Vec<String> = (0..20_000).map(|number| format!("key-{number}")).collect();
    for (kind, strays_max) in [
        (RingKind::Rendezvous, 0.0),
        (RingKind::Jump(KeyHash::Md5), 0.0),
        (RingKind::Maglev(KeyHash::Md5), 0.05),
    ] {
        let (ten, eleven) = (Ring::new(&kind, &nodes[..10]), Ring::new(&kind, &nodes));
        let (mut moved, mut strays) = (0.0, 0.0);
        for key in &keys {
            let (before, after) = (ten.owner(key.as_bytes()), eleven.owner(key.as_bytes()));
            moved += f64::from(before != after);
            strays += f64::from(before != after && after != Some(10));
            let order = eleven.owners(key.as_bytes());
            assert_eq!(order.first().copied(), after, "{kind:?}");
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, (0..11).collect::<Vec<_>>(), "{kind:?}: each server once");
        }
        let (moved, strays) = (moved / 20_000.0, strays / 20_000.0);
        assert!(strays <= strays_max, "{kind:?}: {strays} moved among the others");
        assert!((0.08..0.15).contains(&moved), "{kind:?}: {moved} moved, about 1/11 expected");
        let shares = eleven.shares();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-6, "{kind:?}: {shares:?}");
        let even = shares.iter().all(|share| (0.9..1.1).contains(&(share * 11.0)));
        assert!(even, "{kind:?}: {shares:?}");
    }
    let ring = Ring::new(&RingKind::Rendezvous, &nodes);
    let backwards: Vec<Node> = nodes.iter().rev().cloned().collect();
    let backwards = Ring::new(&RingKind::Rendezvous, &backwards);
    let fifth_gone = [&nodes[..4], &nodes[5..]].concat();
    let without = Ring::new(&RingKind::Rendezvous, &fifth_gone);
    for key in &keys {
        let order = ring.owners(key.as_bytes());
        assert_eq!(backwards.owner(key.as_bytes()).map(|at| 10 - at), Some(order[0]));
        let next = order.into_iter().find(|server| *server != 4).unwrap();
        let next = next - usize::from(next > 4);
        assert_eq!(without.owner(key.as_bytes()), Some(next), "the next one has it then");
    }
}

/// The keys of a server that is gone do not all go to one other.
#[test]
fn stand_ins_share_the_keys_of_a_server() {
    let nodes: Vec<Node> = (1..=6).map(|at| Node::tcp(format!("10.0.0.{at}"), 11211)).collect();
    for kind in [
        RingKind::Weighted,
        RingKind::Rendezvous,
        RingKind::Jump(KeyHash::Md5),
        RingKind::Maglev(KeyHash::Md5),
    ] {
        let ring = Ring::new(&kind, &nodes);
        let mut stand_ins = [0; 6];
        for number in 0..30_000 {
            if let [0, next, ..] = ring.owners(format!("key-{number}").as_bytes())[..] {
                stand_ins[next] += 1;
            }
        }
        let total: u32 = stand_ins.iter().sum();
        let fair = f64::from(total) / 5.0;
        for count in &stand_ins[1..] {
            assert!((0.5..1.5).contains(&(f64::from(*count) / fair)), "{kind:?}: {stand_ins:?}");
        }
    }
}

#[test]
fn weights_are_shares() {
    let weights = [1, 1, 2, 4];
    let nodes: Vec<Node> = (0..4)
        .map(|at| Node::tcp(format!("10.0.0.{at}"), 11211).with_weight(weights[at as usize]))
        .collect();
    for kind in [RingKind::Weighted, RingKind::Rendezvous, RingKind::Maglev(KeyHash::Md5)] {
        for (share, weight) in Ring::new(&kind, &nodes).shares().iter().zip(weights) {
            let relative = share * 8.0 / f64::from(weight);
            assert!((0.8..1.2).contains(&relative), "{kind:?}: {relative} of its share");
        }
    }
    // A weight that all have is none.
    let heavy: Vec<Node> = nodes.iter().map(|node| node.clone().with_weight(3)).collect();
    let light: Vec<Node> = nodes.iter().map(|node| node.clone().with_weight(1)).collect();
    let heavy = Ring::new(&RingKind::Rendezvous, &heavy);
    let light = Ring::new(&RingKind::Rendezvous, &light);
    for number in 0..1000 {
        let key = format!("key-{number}");
        assert_eq!(heavy.owners(key.as_bytes()), light.owners(key.as_bytes()));
    }
}

/// A given name lets a server move to another address with its keys.
#[test]
fn rendezvous_and_maglev_go_by_given_names() {
    let nodes = |network: u32| -> Vec<Node> {
        let node = |at| Node::tcp(format!("10.{network}.0.{at}"), 11211);
        (0..4).map(|at| node(at).with_name(format!("server-{at}"))).collect()
    };
    for kind in [RingKind::Rendezvous, RingKind::Maglev(KeyHash::Md5)] {
        let (here, there) = (Ring::new(&kind, &nodes(1)), Ring::new(&kind, &nodes(2)));
        for number in 0..1000 {
            let key = format!("key-{number}");
            assert_eq!(here.owners(key.as_bytes()), there.owners(key.as_bytes()), "{kind:?}");
        }
    }
}

/// Says what it was told to.
#[derive(Debug)]
struct Fixed(Vec<usize>);

impl Router for Fixed {
    fn owners(&self, _: &[u8]) -> Vec<usize> {
        self.0.clone()
    }
}

#[test]
fn a_router_of_ones_own_cannot_name_a_server_that_is_not_there() {
    let nodes: Vec<Node> = (1..=3).map(|at| Node::tcp(format!("10.0.0.{at}"), 11211)).collect();
    for (says, owner, owners) in [
        (vec![2, 0, 1], Some(2), vec![2, 0, 1]),
        (vec![1], Some(1), vec![1]),
        (vec![1, 1, 7, 0], Some(1), vec![1, 0]),
        (vec![3], None, vec![]),
        (vec![], None, vec![]),
    ] {
        let answers = says.clone();
        let kind = RingKind::own(move |_| Box::new(Fixed(answers.clone())));
        let ring = Ring::new(&kind, &nodes);
        assert_eq!((ring.owner(b"a"), ring.owners(b"a")), (owner, owners), "{says:?}");
        assert_eq!(kind.clone(), kind);
        assert!(ring.points().is_empty());
    }
}

#[test]
fn kinds_by_name() {
    for (text, expected) in [
        ("weighted", Some(RingKind::Weighted)),
        ("consistent", Some(RingKind::Consistent(KeyHash::OneAtATime))),
        ("consistent:md5", Some(RingKind::Consistent(KeyHash::Md5))),
        ("libmemcached-spy", Some(RingKind::LibmemcachedSpy)),
        ("spymemcached", Some(RingKind::Spymemcached)),
        ("spymemcached-libmemcached", Some(RingKind::SpymemcachedLibmemcached)),
        ("twemproxy", Some(RingKind::Twemproxy(KeyHash::Fnv1a64))),
        ("twemproxy:murmur", Some(RingKind::Twemproxy(KeyHash::Murmur))),
        ("modula", Some(RingKind::Modula(KeyHash::OneAtATime))),
        ("jump", Some(RingKind::Jump(KeyHash::Md5))),
        ("jump:crc32a", Some(RingKind::Jump(KeyHash::Crc32a))),
        ("rendezvous", Some(RingKind::Rendezvous)),
        ("maglev", Some(RingKind::Maglev(KeyHash::Md5))),
        ("maglev:fnv1a_64", Some(RingKind::Maglev(KeyHash::Fnv1a64))),
        ("rendezvous:md5", None),
        ("jump:", None),
        ("jump:sha1", None),
        ("ketama", None),
        ("", None),
    ] {
        assert_eq!(text.parse().ok(), expected, "{text}");
    }
    let refused = "ketama".parse::<RingKind>().unwrap_err().to_string();
    assert!(refused.contains("weighted") && refused.contains("maglev"), "{refused}");
}
