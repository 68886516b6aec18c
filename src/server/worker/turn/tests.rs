//! A worker's turns one by one, with sockets of this machine: what needs two things to happen in
//! the same turn.

use super::*;
use crate::server::Hooks;
use crate::server::clock::Clock;
use crate::server::config::Config;
use crate::server::connection::socket::Stream;
use crate::server::worker::queues::Places;
use crate::server::worker::router;
use crate::server::worker::shards::Shards;
use crate::shard::{Rules, Shard};
use crate::store::Settings;
use crate::store::budget::Budget;
use crate::store::hash::KeyHasher;
use crossbeam::channel::{Sender, unbounded};
use socket2::SockRef;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

const SHARDS: usize = 2;

struct Rig {
    worker: Worker,
    shards: Arc<Shards>,
    arrivals: Sender<Arrival>,
    _inbox: Sender<Message>,
    listener: TcpListener,
}

impl Rig {
    fn new() -> Self {
        let rules = Rules { item_bytes_max: 1 << 20, cas: true, prefix_delimiter: b':' };
        let hasher = KeyHasher::new([1, 2]);
        let budget = Budget::new(16 << 20, SHARDS);
        let settings = Settings {
            budget: Arc::clone(&budget),
            evict: true,
            hasher: hasher.clone(),
            sequence_start: 1,
        };
        let (config, clock, hooks) = (Config::default(), Clock::start(), Hooks::default());
        let shared = Arc::new(Shared::new(config, clock, budget, Vec::new(), None, None, hooks));
        let shards = (0..SHARDS).map(|_| Shard::new(settings.clone(), rules)).collect();
        let poll = Poll::new().expect("descriptors are left");
        let waker = mio::Waker::new(poll.registry(), WAKER).expect("the same");
        let bell = Arc::new(Bell::new(waker));
        let shards = Arc::new(Shards::new(shards, vec![Arc::clone(&bell)]));
        let (workers, of_all) = (Vec::new(), Arc::clone(&shared));
        let of_router = Arc::clone(&shards);
        let parts =
            router::Parts { id: 0, shards: of_router, hasher, rules, workers, shared: of_all };
        let router = WorkerRouter::new(parts);
        let (inbox_sender, inbox) = unbounded();
        let (arrivals_sender, arrivals) = unbounded();
        let parts = Parts { poll, bell, inbox, arrivals, router, shared };
        Self {
            worker: Worker::new(parts),
            shards,
            arrivals: arrivals_sender,
            _inbox: inbox_sender,
            listener: TcpListener::bind("127.0.0.1:0").expect("a port is free"),
        }
    }

    /// A client whose connection is at the worker.
    fn connect(&mut self) -> TcpStream {
        let address = self.listener.local_addr().expect("it is bound");
        let client = TcpStream::connect(address).expect("it listens");
        let (stream, _) = self.listener.accept().expect("the client is there");
        stream.set_nonblocking(true).expect("a socket");
        let stream = Stream::Tcp(mio::net::TcpStream::from_std(stream));
        self.worker.shared.connections.fetch_add(1, Ordering::Relaxed);
        let arrival =
            Arrival { stream, listener: "here".into(), spoken: Config::default().spoken(None) };
        self.arrivals.send(arrival).expect("the worker is there");
        let open = self.worker.connections.len();
        while self.worker.connections.len() == open {
            self.turn();
        }
        client
    }

    fn turn(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        self.worker.wait(&mut events).expect("it can wait");
        self.worker.turn(&events);
    }
}

/// The connection's last words are a command and a reset, and what has its token twice in the lists
/// reads both in one turn.
#[test]
fn a_token_that_a_closed_connection_left_behind_is_not_served_twice() {
    let mut rig = Rig::new();
    let mut client = rig.connect();
    client.write_all(b"get a\r\n").expect("it is taken");
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(client);
    let (token, _) = rig.worker.connections.iter().next().expect("it is open");
    rig.worker.queues.serve_in_line(token, &mut Places::default());
    while !rig.worker.connections.is_empty() {
        rig.turn();
    }
    assert_eq!(rig.worker.shared.connections.load(Ordering::Relaxed), 0);
    // And nobody is served a turn too few.
    let mut client = rig.connect();
    client.set_read_timeout(Some(PATIENCE)).expect("a socket");
    client.write_all(b"mn\r\n").expect("it is taken");
    let mut reply = String::new();
    rig.turn();
    BufReader::new(client).read_line(&mut reply).expect("an answer in time");
    assert_eq!(reply, "MN\r\n");
}

/// As if the worker that holds a shard had lost the processor: whoever needs that shard waits, and
/// nobody else does. Then the shard is let go, and the worker is called.
#[test]
fn a_shard_that_is_held_delays_only_who_needs_it() {
    let mut rig = Rig::new();
    let mut clients: Vec<_> = (0..2).map(|_| rig.connect()).collect();
    // A key in each shard.
    let key_in = |shard| {
        let hash = |key: &String| rig.worker.router.hash(key.as_bytes());
        let mut keys = (0..).map(|number: u32| format!("key-{number}"));
        keys.find(|key| rig.shards.of(hash(key)) == shard).expect("some key")
    };
    let keys = [key_in(0), key_in(1)];
    let shards = Arc::clone(&rig.shards);
    let held = shards.hold(0);
    for (client, key) in clients.iter_mut().zip(&keys) {
        let said = format!("set {key} 0 0 1\r\nx\r\nget {key}\r\n");
        client.write_all(said.as_bytes()).expect("it is taken");
    }
    let answer = |client: &mut TcpStream| {
        client.set_read_timeout(Some(Duration::from_millis(1))).expect("a socket");
        let mut bytes = [0; 256];
        let count = client.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    let mut answers = [String::new(), String::new()];
    let mut play =
        |rig: &mut Rig, answers: &mut [String; 2], until: &dyn Fn(&[String; 2]) -> bool| {
            for _ in 0..1000 {
                rig.turn();
                for (answers, client) in answers.iter_mut().zip(&mut clients) {
                    *answers += &answer(client);
                }
                if until(answers) {
                    return;
                }
            }
            panic!("not answered: {answers:?}");
        };
    let whole = |text: &String| text.starts_with("STORED\r\n") && text.ends_with("END\r\n");
    play(&mut rig, &mut answers, &|answers| whole(&answers[1]));
    assert_eq!(answers[0], "", "the shard is held");
    drop(held);
    play(&mut rig, &mut answers, &|answers| whole(&answers[0]));
    assert_eq!(answers[0], format!("STORED\r\nVALUE {} 0 1\r\nx\r\nEND\r\n", keys[0]));
}
