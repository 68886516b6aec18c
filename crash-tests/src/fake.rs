//! A server for tests of the rigs themselves: memcached's text on a map, which on request does
//! with its data what a broken server would do in a crash. What the checker must catch is done
//! here on purpose.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::client::{Pace, unix_now};
use crate::model::Fault;
use crate::options::Options;
use crate::server::{Policy, Spec};
use crate::session::{Crash, Tally, check, load, streams};
use crate::stream::Stream;

/// Enough for several mutations of every key.
const MUTATIONS: u64 = 3000;
const FAR_S: u64 = 5000;
const LOAD_TIME_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq)]
struct Item {
    value: Vec<u8>,
    flags: u32,
    expires: u64,
}

/// What is stored under a key, and what was before.
#[derive(Clone, Debug, Default)]
struct Slot {
    now: Option<Item>,
    before: Option<Item>,
    /// How many mutations there had been when it was last changed.
    changed_at: u64,
}

#[derive(Debug, Default)]
struct Store {
    slots: HashMap<Vec<u8>, Slot>,
    mutations: u64,
    /// From here on nothing is changed, though mutations are answered as if.
    frozen_at: Option<u64>,
    /// Added to the replies of incr.
    lie: u64,
    /// Told when there have been enough mutations.
    enough: Option<Sender<()>>,
}

impl Store {
    fn get(&self, key: &[u8]) -> Option<Item> {
        self.slots.get(key).and_then(|slot| slot.now.clone())
    }

    fn put(&mut self, key: &[u8], item: Option<Item>) {
        self.mutations += 1;
        if self.mutations == MUTATIONS
            && let Some(enough) = self.enough.take()
        {
            // Without a receiver the test has failed already.
            let _ = enough.send(());
        }
        if self.frozen_at.is_some_and(|at| self.mutations > at) {
            return;
        }
        let slot = self.slots.entry(key.to_vec()).or_default();
        slot.before = std::mem::replace(&mut slot.now, item);
        slot.changed_at = self.mutations;
    }

    /// Executes one command.
    fn command(&mut self, line: &str, words: &[&[u8]], value: Vec<u8>) -> Vec<u8> {
        let number = |at: usize| -> u64 {
            let word = words.get(at).and_then(|word| str::from_utf8(word).ok());
            word.and_then(|word| word.parse().ok()).unwrap_or(0)
        };
        let is_meta = line.starts_with('m');
        let key = match is_meta {
            true if line.contains(" b") => STANDARD.decode(words[1]).unwrap(),
            _ => words[1].to_vec(),
        };
        let flag = |letter: char| {
            let word = line.split(' ').skip(2).find_map(|word| word.strip_prefix(letter));
            word.and_then(|word| word.parse::<u64>().ok())
        };
        let (done, missing) = if is_meta { ("HD", "NF") } else { ("STORED", "NOT_FOUND") };
        let found = self.get(&key);
        let text = match (words[0], found) {
            (b"mg", found) if line.contains(" v") => return read_reply(found),
            (b"ms", _) if words.last() != Some(&b"MA".as_slice()) => {
                let (flags, expires) = (flag('F').unwrap_or(0), flag('T').unwrap_or(0));
                self.put(&key, Some(Item { value, flags: flags as u32, expires }));
                done
            }
            (b"set", _) => {
                let (flags, expires) = (number(2) as u32, number(3));
                self.put(&key, Some(Item { value, flags, expires }));
                done
            }
            (b"append", None) => "NOT_STORED",
            (b"ms", None) => "NS",
            (b"mg", None) => "EN",
            (_, None) => missing,
            (b"append" | b"ms", Some(item)) => {
                let value = [item.value.as_slice(), &value].concat();
                self.put(&key, Some(Item { value, ..item }));
                done
            }
            (b"delete" | b"md", Some(_)) => {
                self.put(&key, None);
                if is_meta { done } else { "DELETED" }
            }
            (b"touch" | b"mg", Some(item)) => {
                let expires = flag('T').unwrap_or_else(|| number(2));
                self.put(&key, Some(Item { expires, ..item }));
                if is_meta { done } else { "TOUCHED" }
            }
            (verb, Some(item)) => {
                let before: u64 = str::from_utf8(&item.value).unwrap().parse().unwrap();
                let delta = number(2);
                let after = if verb == b"incr" { before + delta } else { before - delta };
                self.put(&key, Some(Item { value: after.to_string().into_bytes(), ..item }));
                return format!("{}\r\n", after + self.lie).into_bytes();
            }
        };
        format!("{text}\r\n").into_bytes()
    }
}

fn read_reply(found: Option<Item>) -> Vec<u8> {
    let now = unix_now();
    let Some(item) = found.filter(|item| item.expires == 0 || item.expires > now) else {
        return b"EN\r\n".to_vec();
    };
    let ttl = match item.expires {
        0 => "-1".to_owned(),
        expires => (expires - now).to_string(),
    };
    let head = format!("VA {} f{} t{ttl}\r\n", item.value.len(), item.flags);
    [head.as_bytes(), &item.value, b"\r\n"].concat()
}

fn serve(socket: TcpStream, store: &Mutex<Store>) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut writer = socket;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        line.truncate(line.len() - 2);
        let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let at = match words[0] {
            b"set" | b"append" => Some(4),
            b"ms" => Some(2),
            _ => None,
        };
        let mut value = Vec::new();
        if let Some(at) = at {
            let length: usize = str::from_utf8(words[at]).unwrap().parse().unwrap();
            value.resize(length + 2, 0);
            reader.read_exact(&mut value)?;
            value.truncate(length);
        }
        let text = String::from_utf8_lossy(&line).into_owned();
        let reply = store.lock().unwrap().command(&text, &words, value);
        writer.write_all(&reply)?;
    }
}

/// A running fake. Its threads end with their connections and the test.
struct Fake {
    store: Arc<Mutex<Store>>,
    address: SocketAddr,
}

impl Fake {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let store = Arc::new(Mutex::new(Store::default()));
        let shared = store.clone();
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let store = shared.clone();
                thread::spawn(move || serve(socket, &store));
            }
        });
        Self { store, address }
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }
}

/// A run against the fake: load, then `crash` does something to its data, then the check.
fn run(threads: usize, before: impl Fn(&mut Store), crash: impl Fn(&mut Store)) -> Tally {
    let options = Options { clients: 2, keys: 64, threads, ..Options::default() };
    let spec = Spec::new(&options, Path::new("distcached"), Policy::Always, Path::new("."));
    let mut streams: Vec<Stream> =
        streams(&options, &spec).into_iter().map(Stream::with_small_values).collect();
    let fake = Fake::start();
    before(&mut fake.store());
    let pace = Pace { batch_max: 8, pause: Duration::ZERO };
    let (sender, enough) = channel();
    fake.store().enough = Some(sender);
    let (waited, seen) =
        load(&mut streams, fake.address, pace, || enough.recv_timeout(LOAD_TIME_MAX));
    waited.unwrap();
    crash(&mut fake.store());
    let mut tally = Tally::default();
    tally.note(&seen);
    let crash = (Crash::Process, Instant::now());
    check(&mut streams, fake.address, &spec, crash, &mut tally).unwrap();
    tally
}

/// Does `change` to one key of those whose present and former item satisfy `choose`.
fn change_one(
    store: &mut Store,
    choose: impl Fn(Option<&Item>, Option<&Item>) -> bool,
    change: impl Fn(&mut Slot),
) {
    let lasting = |item: Option<&Item>| {
        item.is_none_or(|item| item.expires == 0 || item.expires > unix_now() + FAR_S)
    };
    let fitting = store.slots.values_mut().filter(|slot| {
        let (now, before) = (slot.now.as_ref(), slot.before.as_ref());
        lasting(now) && lasting(before) && choose(now, before)
    });
    // The one that is longest unchanged: undoing a writer's very last mutation leaves no hole.
    let slot = fitting.min_by_key(|slot| slot.changed_at);
    change(slot.expect("a key of that kind"));
}

fn check_fault(expected: Fault, crash: impl Fn(&mut Store)) {
    let tally = run(2, |_| (), crash);
    assert!(tally.is_broken(Crash::Process), "{expected:?} not noticed");
    let faults: Vec<_> = tally.faults.iter().map(|(fault, count)| (*fault, *count)).collect();
    assert_eq!(faults, [(expected, 1)], "{:?}", tally.examples);
}

#[test]
fn a_server_that_keeps_everything_is_not_blamed() {
    for threads in [1, 2] {
        let tally = run(threads, |_| (), |_| ());
        assert!(!tally.is_broken(Crash::Process), "{:?}", tally.examples);
        assert!(tally.acknowledged > MUTATIONS / 2, "{tally:?}");
        assert_eq!(tally.prefix_checked, if threads == 1 { 2 } else { 0 });
    }
}

#[test]
fn a_lost_value_is_found() {
    check_fault(Fault::Lost, |store| {
        change_one(store, |now, before| now.is_some() && before.is_some(), |slot| slot.now = None);
    });
}

#[test]
fn an_older_value_is_found() {
    check_fault(Fault::Stale, |store| {
        let older = |now: Option<&Item>, before: Option<&Item>| match (now, before) {
            (Some(now), Some(before)) => now.value != before.value,
            _ => false,
        };
        change_one(store, older, |slot| slot.now = slot.before.clone());
    });
}

#[test]
fn a_deleted_value_back_is_found() {
    check_fault(Fault::Resurrected, |store| {
        change_one(
            store,
            |now, before| now.is_none() && before.is_some(),
            |slot| slot.now = slot.before.clone(),
        );
    });
}

#[test]
fn a_flipped_bit_is_found() {
    check_fault(Fault::Wrong, |store| {
        let has_text = |now: Option<&Item>, _: Option<&Item>| {
            now.is_some_and(|item| item.value.starts_with(b"w") && item.value.len() > 20)
        };
        change_one(store, has_text, |slot| slot.now.as_mut().unwrap().value[15] ^= 1);
    });
}

#[test]
fn other_flags_and_a_lost_expiry_are_found() {
    check_fault(Fault::Attributes, |store| {
        change_one(store, |now, _| now.is_some(), |slot| slot.now.as_mut().unwrap().flags ^= 1);
    });
    check_fault(Fault::Attributes, |store| {
        // Not by a touch: then the state found would be that before it.
        let expires = |now: Option<&Item>, before: Option<&Item>| {
            now.is_some_and(|now| now.expires > 0 && before.is_none_or(|b| b.value != now.value))
        };
        change_one(store, expires, |slot| slot.now.as_mut().unwrap().expires = 0);
    });
}

#[test]
fn a_count_that_is_no_sum_is_found() {
    let tally = run(2, |store| store.lie = 1, |_| ());
    assert!(tally.faults.contains_key(&Fault::Reply), "{tally:?}");
    assert!(tally.is_broken(Crash::Process));
}

#[test]
fn a_tail_cut_off_is_a_loss_but_a_prefix() {
    let frozen = |store: &mut Store| store.frozen_at = Some(MUTATIONS - 500);
    // Its replies know of the cut before the crash, which a real one's would not.
    let tally = run(1, frozen, |_| ());
    assert!(tally.lost > 0, "{tally:?}");
    assert!(tally.is_broken(Crash::Process));
}

#[test]
fn a_hole_in_the_order_is_found() {
    // One key is as old as its last but one mutation, though newer mutations of others are there.
    let crash = |store: &mut Store| {
        let older = |now: Option<&Item>, before: Option<&Item>| match (now, before) {
            (Some(now), Some(before)) => now.value != before.value,
            _ => false,
        };
        change_one(store, older, |slot| slot.now = slot.before.clone());
    };
    let tally = run(1, |_| (), crash);
    assert_eq!((tally.prefix_checked, tally.prefix_broken), (2, 1), "{:?}", tally.examples);
    assert!(tally.is_broken(Crash::Power(Policy::No)));
}
