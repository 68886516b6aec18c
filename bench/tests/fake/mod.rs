//! A server in a thread, just good enough to load and able to misbehave. Owns its socket and its
//! items; ends with the last connection and the test.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What the server does wrong. Each test file has its own faults.
#[allow(dead_code)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// Flips a bit of every value served.
    FlipBit,
    /// Serves each key the value stored last, whosever it is.
    OtherValue,
    /// Answers every command but `version` with an error.
    Errors,
    /// Sends no reply for this long, once, after the first 100 commands.
    StallOnce(Duration),
    /// Closes the connection after 100 commands.
    Close,
    /// Answers nobody for this long when asked for the key `stall`.
    StallAll(Duration),
    /// Keeps a mebibyte and the socket of every connection for ever.
    Leak,
    /// Tells connections after so many that there are too many, in its own words.
    Refuse(usize),
}

#[derive(Debug)]
pub(crate) struct Fake {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    fault: Fault,
    items: Mutex<HashMap<String, Vec<u8>>>,
    last: Mutex<Vec<u8>>,
    commands: AtomicU64,
    sets: AtomicU64,
}

impl Fake {
    pub(crate) fn start(fault: Fault) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("binding");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(State {
            fault,
            items: Mutex::default(),
            last: Mutex::default(),
            commands: AtomicU64::new(0),
            sets: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for (count, stream) in listener.incoming().flatten().enumerate() {
                let state = Arc::clone(&shared);
                match fault {
                    Fault::Leak => std::mem::forget((stream.try_clone(), vec![1_u8; 1 << 20])),
                    Fault::Refuse(places) if count >= places => {
                        // The client may be gone.
                        let _ = (&stream).write_all(b"ERROR Too many\r\n");
                        continue;
                    }
                    _ => {}
                }
                // Errors are the load generator hanging up.
                thread::spawn(move || state.serve(stream));
            }
        });
        Self { address, state }
    }

    pub(crate) fn items(&self) -> usize {
        self.state.items.lock().unwrap().len()
    }

    pub(crate) fn sets(&self) -> u64 {
        self.state.sets.load(Ordering::SeqCst)
    }
}

impl State {
    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream);
        let mut replies = Vec::new();
        let mut line = String::new();
        loop {
            line.clear();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            match line.strip_prefix('*') {
                Some(count) => self.answer_resp(count, &mut reader, &mut replies)?,
                None => self.answer(line.trim_end(), &mut reader, &mut replies)?,
            }
            if reader.buffer().is_empty() {
                reader.get_mut().write_all(&replies).ok()?;
                replies.clear();
            }
        }
    }

    fn answer(&self, line: &str, reader: &mut impl Read, out: &mut Vec<u8>) -> Option<()> {
        let words: Vec<&str> = line.split(' ').collect();
        if words[0] == "version" {
            out.extend_from_slice(b"VERSION fake\r\n");
            return Some(());
        }
        if words[0] == "PING" {
            out.extend_from_slice(b"+PONG\r\n");
            return Some(());
        }
        let command = self.commands.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::StallOnce(time) if command == 100 => thread::sleep(time),
            Fault::Close if command == 100 => return None,
            Fault::Errors => {
                self.skip_data(&words, reader)?;
                out.extend_from_slice(b"SERVER_ERROR out of order\r\n");
                return Some(());
            }
            _ => {}
        }
        match words[0] {
            "get" => {
                for key in &words[1..] {
                    if let Some(value) = self.value(key) {
                        write!(out, "VALUE {key} 0 {}\r\n", value.len()).ok()?;
                        out.extend_from_slice(&value);
                        out.extend_from_slice(b"\r\n");
                    }
                }
                out.extend_from_slice(b"END\r\n");
            }
            "mg" => match self.value(words[1]) {
                Some(value) => {
                    write!(out, "VA {}\r\n", value.len()).ok()?;
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                None => out.extend_from_slice(b"EN\r\n"),
            },
            "set" => self.set(&words, reader, out)?,
            _ => out.extend_from_slice(b"ERROR\r\n"),
        }
        Some(())
    }

    /// Redis's protocol: `count` words, each after its length.
    fn answer_resp(&self, count: &str, reader: &mut impl BufRead, out: &mut Vec<u8>) -> Option<()> {
        let mut words = Vec::new();
        for _ in 0..count.trim_end().parse::<usize>().ok()? {
            let mut header = String::new();
            reader.read_line(&mut header).ok()?;
            let length: usize = header.strip_prefix('$')?.trim_end().parse().ok()?;
            let mut word = vec![0; length + 2];
            reader.read_exact(&mut word).ok()?;
            assert!(word.ends_with(b"\r\n"), "a word ends with a line end");
            word.truncate(length);
            words.push(word);
        }
        let key = String::from_utf8(words[1].clone()).ok()?;
        match (words[0].as_slice(), self.fault) {
            (_, Fault::Errors) => out.extend_from_slice(b"-ERR out of order\r\n"),
            (b"SET", _) => {
                self.last.lock().unwrap().clone_from(&words[2]);
                self.items.lock().unwrap().insert(key, words[2].clone());
                self.sets.fetch_add(1, Ordering::SeqCst);
                out.extend_from_slice(b"+OK\r\n");
            }
            (b"GET", _) => match self.value(&key) {
                Some(value) => {
                    write!(out, "${}\r\n", value.len()).ok()?;
                    out.extend_from_slice(&value);
                    out.extend_from_slice(b"\r\n");
                }
                None => out.extend_from_slice(b"$-1\r\n"),
            },
            (verb, _) => panic!("{} is not spoken", String::from_utf8_lossy(verb)),
        }
        Some(())
    }

    fn set(&self, words: &[&str], reader: &mut impl Read, out: &mut Vec<u8>) -> Option<()> {
        let mut value = vec![0; words[4].parse::<usize>().ok()? + 2];
        reader.read_exact(&mut value).ok()?;
        assert!(value.ends_with(b"\r\n"), "a data block ends with a line end");
        value.truncate(value.len() - 2);
        self.last.lock().unwrap().clone_from(&value);
        self.items.lock().unwrap().insert(words[1].to_owned(), value);
        self.sets.fetch_add(1, Ordering::SeqCst);
        if words.get(5) != Some(&"noreply") {
            out.extend_from_slice(b"STORED\r\n");
        }
        Some(())
    }

    fn skip_data(&self, words: &[&str], reader: &mut impl Read) -> Option<()> {
        if words[0] == "set" {
            reader.read_exact(&mut vec![0; words[4].parse::<usize>().ok()? + 2]).ok()?;
        }
        Some(())
    }

    fn value(&self, key: &str) -> Option<Vec<u8>> {
        let items = self.items.lock().unwrap();
        if let ("stall", Fault::StallAll(time)) = (key, self.fault) {
            thread::sleep(time);
        }
        let mut value = items.get(key)?.clone();
        match self.fault {
            Fault::FlipBit => *value.last_mut()? ^= 1,
            Fault::OtherValue => value.clone_from(&self.last.lock().unwrap()),
            _ => {}
        }
        Some(value)
    }
}
