//! Logging in (`-Y`, `-S`): who may, and whether a password is right.
//!
//! Plain passwords are kept and compared as keyed digests, in constant time over all users. Hashed
//! ones (`$5$`, `$6$`: SHA-crypt) take milliseconds to check, on purpose, so they are checked by a
//! thread of their own: clients who guess passwords hold up each other, not the workers. With any
//! hashed password in the file every attempt goes there, so that the time does not tell which users
//! exist. Never logs names or passwords.
//!
//! What guesses can hold up is bounded: so many wait, none is long, the guesses of connections that
//! are gone are dropped, and those of clients that have said all they had to say come last.

use crate::server::connection::socket::ConnectionId;
use crate::server::worker::inbox::{Address, Message};
use crossbeam::channel::{Receiver, Sender, TryRecvError, bounded};
use sha_crypt::{PasswordVerifier, ShaCrypt};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, Weak};
use subtle::{Choice, ConstantTimeEq};

/// Attempts that wait for the thread. More are answered at once, with an error.
pub const ATTEMPTS_WAITING_MAX: usize = 256;

/// Largest file of users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Longest password that is compared with a hashed one: the time it takes grows with the length,
/// and whoever guesses chooses that. (memcached's files have lines of up to 256 bytes.)
const HASHED_PASSWORD_BYTES_MAX: usize = 256;

/// Most rounds of a hashed password: above, one attempt would take longer than clients wait.
const ROUNDS_MAX: u32 = 200_000;

/// Where a `rounds=` field of a hashed password starts.
const ROUNDS: &str = "rounds=";

/// A file of users: lines of `user:password`.
#[derive(Debug, Clone)]
pub struct UserFile {
    /// Where it is.
    pub path: PathBuf,
    /// The flag or variable that names it.
    pub named_by: &'static str,
    /// It is read as memcached reads the file that `MEMCACHED_SASL_PWDB` names: what follows a
    /// password and a colon may be something else (with a colon in a password both readings
    /// count), and users may have a realm behind an `@`, which clients need not say. (memcached
    /// adds the machine's name to what they say; here any realm will do, as all users of a file may
    /// do the same.)
    pub is_password_database: bool,
}

/// The users of a server.
#[derive(Debug)]
pub struct Users {
    files: Vec<UserFile>,
    table: Arc<RwLock<Arc<UserTable>>>,
    attempts: Sender<Attempt>,
    secret: [u8; 16],
}

/// A client that waits for a verdict, kept by its connection: without it nobody waits any more.
#[derive(Debug, Default)]
pub struct Waiting {
    /// The client will send no more. It may be gone, or may just have said all.
    leaves: Arc<AtomicBool>,
}

impl Waiting {
    /// The client will send no more.
    pub fn leave(&self) {
        self.leaves.store(true, Ordering::Relaxed);
    }
}

/// A password to be checked by the thread.
#[derive(Debug)]
pub struct Attempt {
    /// The worker that asks.
    pub worker: usize,
    /// The connection.
    pub connection: ConnectionId,
    /// Whether it still waits, and whether its client will send more.
    leaves: Weak<AtomicBool>,
    user: Vec<u8>,
    password: Vec<u8>,
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Verdict {
    /// They may come in.
    Accepted,
    /// Wrong user or wrong password.
    Refused,
    /// The thread will say.
    Pending(Waiting),
    /// Too many attempts wait.
    Busy,
}

/// The contents of a file of users.
#[derive(Debug, Default)]
struct UserTable {
    secret: [u8; 16],
    /// Digests of user and password.
    plain: Vec<[u8; 32]>,
    /// Digests of users, and their hashed passwords.
    hashed: Vec<([u8; 32], String)>,
}

/// What the thread needs.
#[derive(Debug)]
pub struct PasswordChecker {
    table: Arc<RwLock<Arc<UserTable>>>,
    attempts: Receiver<Attempt>,
}

impl Users {
    /// Reads the users. Also returns what the thread needs.
    ///
    /// # Errors
    /// Those of reading the file, and `InvalidData` with the line that is wrong.
    pub fn open(files: Vec<UserFile>) -> Result<(Self, PasswordChecker), BadFile> {
        let mut secret = [0; 16];
        // Without it nothing could be compared safely; it is the first file's misfortune.
        let no_secret = |why| (files[0].clone(), io::Error::other(why));
        getrandom::fill(&mut secret).map_err(no_secret)?;
        let table = Arc::new(RwLock::new(Arc::new(UserTable::read(&files, secret)?)));
        let (sender, attempts) = bounded(ATTEMPTS_WAITING_MAX);
        let checker = PasswordChecker { table: Arc::clone(&table), attempts };
        Ok((Self { files, table, attempts: sender, secret }, checker))
    }

    /// Reads the file again. If it is not as it should be, the users stay as they are.
    ///
    /// # Errors
    /// As [`Users::open`].
    pub fn reload(&self) -> Result<(), BadFile> {
        let table = Arc::new(UserTable::read(&self.files, self.secret)?);
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// The files.
    pub fn files(&self) -> &[UserFile] {
        &self.files
    }

    /// Whether this user has this password. The verdict may come later, to the worker's inbox.
    pub fn ask(
        &self,
        user: &[u8],
        password: &[u8],
        worker: usize,
        connection: ConnectionId,
    ) -> Verdict {
        let users = current(&self.table);
        if users.hashed.is_empty() {
            let found = users.has_plain(user, password);
            return if found { Verdict::Accepted } else { Verdict::Refused };
        }
        let (user, password) = (user.to_vec(), password.to_vec());
        let waiting = Waiting::default();
        let leaves = Arc::downgrade(&waiting.leaves);
        match self.attempts.try_send(Attempt { worker, connection, leaves, user, password }) {
            Ok(()) => Verdict::Pending(waiting),
            Err(_) => Verdict::Busy,
        }
    }
}

fn current(users: &RwLock<Arc<UserTable>>) -> Arc<UserTable> {
    Arc::clone(&users.read().unwrap_or_else(PoisonError::into_inner))
}

impl PasswordChecker {
    /// Checks attempts until the server is gone.
    pub fn run(self, workers: &[Address]) {
        let mut last = VecDeque::new();
        while let Some(attempt) = next_attempt(&self.attempts, &mut last) {
            let accepted = current(&self.table).has(&attempt.user, &attempt.password);
            let Some(address) = workers.get(attempt.worker) else { continue };
            address.send(Message::Login { connection: attempt.connection, accepted });
        }
    }
}

/// The attempt to look at next: nobody's is dropped, those of clients that leave come last, and of
/// these no more than may wait at all. `None`: the server is gone.
fn next_attempt(attempts: &Receiver<Attempt>, last: &mut VecDeque<Attempt>) -> Option<Attempt> {
    loop {
        let attempt = match attempts.try_recv() {
            Ok(attempt) => attempt,
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => match last.pop_front() {
                Some(attempt) if attempt.leaves.strong_count() == 0 => continue,
                Some(attempt) => return Some(attempt),
                None => attempts.recv().ok()?,
            },
        };
        match attempt.leaves.upgrade().map(|leaves| leaves.load(Ordering::Relaxed)) {
            None => {}
            Some(false) => return Some(attempt),
            Some(true) if last.len() < ATTEMPTS_WAITING_MAX => last.push_back(attempt),
            // Its connection waits until then, as for a password that takes long.
            Some(true) => {
                last.push_back(attempt);
                return last.pop_front();
            }
        }
    }
}

/// A file of users that is not as it should be.
pub type BadFile = (UserFile, io::Error);

impl UserTable {
    fn read(files: &[UserFile], secret: [u8; 16]) -> Result<Self, BadFile> {
        let mut users = Self { secret, ..Self::default() };
        for file in files {
            users.add_file(file).map_err(|why| (file.clone(), why))?;
        }
        Ok(users)
    }

    fn add_file(&mut self, file: &UserFile) -> io::Result<()> {
        let mut text = Vec::new();
        File::open(&file.path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
        let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(invalid("it is larger than a megabyte".to_owned()));
        }
        let mut is_empty = true;
        for (at, line) in text.split(|byte| *byte == b'\n').enumerate() {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                let added = self.add(line, file.is_password_database);
                added.map_err(|why| invalid(format!("line {}: {why}", at + 1)))?;
                is_empty = false;
            }
        }
        if is_empty {
            return Err(invalid("it names no user; lines are user:password".to_owned()));
        }
        Ok(())
    }

    fn add(&mut self, line: &[u8], is_password_database: bool) -> Result<(), &'static str> {
        let colon = memchr::memchr(b':', line).ok_or("expected user:password")?;
        let (user, password) = (&line[..colon], &line[colon + 1..]);
        if !is_password_database {
            return self.add_user(user, password);
        }
        let realm = memchr::memrchr(b'@', user);
        for user in [Some(user), realm.map(|at| &user[..at])].into_iter().flatten() {
            self.add_user(user, password)?;
            for end in memchr::memchr_iter(b':', password) {
                self.add_user(user, &password[..end])?;
            }
        }
        Ok(())
    }

    fn add_user(&mut self, user: &[u8], password: &[u8]) -> Result<(), &'static str> {
        match hashed(password)? {
            Some(hash) => self.hashed.push((self.digest(user, b""), hash.to_owned())),
            None => self.plain.push(self.digest(user, password)),
        }
        Ok(())
    }

    fn digest(&self, user: &[u8], password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        digest.update(self.secret);
        digest.update((user.len() as u64).to_le_bytes());
        digest.update(user);
        digest.update(password);
        digest.finalize().into()
    }

    /// Looks at all users, whichever is the right one.
    fn has_plain(&self, user: &[u8], password: &[u8]) -> bool {
        let wanted = self.digest(user, password);
        let one = |found: Choice, known: &[u8; 32]| found | known.ct_eq(&wanted);
        self.plain.iter().fold(Choice::from(0), one).into()
    }

    fn has(&self, user: &[u8], password: &[u8]) -> bool {
        let name = self.digest(user, b"");
        let mut found = self.has_plain(user, password);
        // No hash is of a longer one: it would have been refused by the tools too.
        if password.len() > HASHED_PASSWORD_BYTES_MAX {
            return found;
        }
        let mut checked = false;
        for (_, hash) in self.hashed.iter().filter(|known| known.0.ct_eq(&name).into()) {
            found |= ShaCrypt::default().verify_password(password, hash.as_str()).is_ok();
            checked = true;
        }
        if !checked && let Some((_, hash)) = self.hashed.first() {
            // Takes as long for a user there is not.
            let _ = ShaCrypt::default().verify_password(password, hash.as_str());
        }
        found
    }
}

/// The password of a line as text if it is a hash; what looks like one and cannot be checked is an
/// error rather than a plain password.
fn hashed(password: &[u8]) -> Result<Option<&str>, &'static str> {
    if !password.starts_with(b"$5$") && !password.starts_with(b"$6$") {
        return Ok(None);
    }
    let hash = str::from_utf8(password).map_err(|_| "not a hashed password")?;
    let rounds = hash[3..].strip_prefix(ROUNDS).and_then(|rest| rest.split('$').next());
    if rounds.is_some_and(|rounds| !rounds.parse::<u32>().is_ok_and(|count| count <= ROUNDS_MAX)) {
        return Err("more rounds than 200000 make clients wait too long");
    }
    // The one way to learn whether it can be checked is to check something.
    match ShaCrypt::default().verify_password(b"", hash) {
        Ok(()) | Err(sha_crypt::password_hash::Error::PasswordInvalid) => Ok(Some(hash)),
        Err(_) => Err("a hashed password that cannot be checked; use \"openssl passwd -6\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // openssl passwd -6 -salt saltsalt secret; -5 likewise.
    const SHA512: &str = concat!(
        "$6$saltsalt$TVLlQcbpFVof5W3Yz4DTP6gRstiNuHwwTt6GLc1E5n0U0aDe",
        "hy0S5knV8wiOQSpT0Y77vwPZN.Pq.H91p5hVO1"
    );
    const SHA256: &str = "$5$saltsalt$0IyaXrmV7.sGNS6tirgqHLqX/G.FBvgkYA.lpPdS5sA";

    fn users(text: &str) -> Result<UserTable, String> {
        let path =
            std::env::temp_dir().join(format!("login-{}-{}", std::process::id(), text.len()));
        std::fs::write(&path, text).unwrap();
        let file =
            UserFile { path, named_by: "-Y", is_password_database: text.starts_with("pwdb@") };
        let users = UserTable::read(std::slice::from_ref(&file), [7; 16]);
        std::fs::remove_file(file.path).unwrap();
        users.map_err(|(_, why)| why.to_string())
    }

    /// As memcached reads what `MEMCACHED_SASL_PWDB` names: a colon may end a password, and a user
    /// may have a realm.
    #[test]
    fn users_of_a_password_database() {
        let users = users("pwdb@host:secret:1000:home\nal:\n").unwrap();
        for (user, password, expected) in [
            ("pwdb@host", "secret", true),
            ("pwdb@", "secret", false),
            ("pwdb@other", "secret", false),
            ("al@host", "", false),
            ("pwdb", "secret", true),
            ("pwdb", "secret:1000", true),
            ("pwdb", "secret:1000:home", true),
            ("pwdb", "secret:", false),
            ("pwdb", "", false),
            ("al", "", true),
            ("al", "x", false),
        ] {
            assert_eq!(users.has(user.as_bytes(), password.as_bytes()), expected, "{password}");
        }
    }

    fn attempt(user: &str) -> (Attempt, Waiting) {
        let waiting = Waiting::default();
        let attempt = Attempt {
            worker: 0,
            connection: ConnectionId::default(),
            leaves: Arc::downgrade(&waiting.leaves),
            user: user.into(),
            password: Vec::new(),
        };
        (attempt, waiting)
    }

    /// 300 guesses of clients that were gone by then once held up an honest login for 25 s.
    #[test]
    fn who_still_waits_comes_first_and_who_is_gone_not_at_all() {
        let (sender, attempts) = bounded(8);
        let mut waiting = Vec::new();
        for (user, stays, leaves) in [
            ("gone", false, false),
            ("leaves", true, true),
            ("gone too", false, true),
            ("honest", true, false),
            ("leaves as well", true, true),
            ("honest too", true, false),
        ] {
            let (attempt, waits) = attempt(user);
            sender.send(attempt).unwrap();
            if leaves {
                waits.leave();
            }
            waiting.extend(Some(waits).filter(|_| stays));
        }
        let mut last = VecDeque::new();
        let next = |_| next_attempt(&attempts, &mut last).unwrap().user;
        let users: Vec<_> = (0..4).map(next).map(|user| String::from_utf8(user).unwrap()).collect();
        assert_eq!(users, ["honest", "honest too", "leaves", "leaves as well"]);
    }

    #[test]
    fn passwords_plain_and_hashed() {
        let text = format!("bob:secret\r\nal:pa:ss wd\n\nopen:\neve:{SHA512}\nmo:{SHA256}");
        let users = users(&text).unwrap();
        for (user, password, expected) in [
            ("bob", "secret", true),
            ("bob", "secre", false),
            ("bob", "secrets", false),
            ("bobs", "ecret", false),
            ("", "bobsecret", false),
            ("al", "pa:ss wd", true),
            ("al", "pa", false),
            ("open", "", true),
            ("open", "x", false),
            ("eve", "secret", true),
            ("eve", "", false),
            ("eve", SHA512, false),
            ("mo", "secret", true),
            ("mo", "eve", false),
            ("nobody", "secret", false),
        ] {
            assert_eq!(users.has(user.as_bytes(), password.as_bytes()), expected, "{user}");
        }
    }

    #[test]
    fn files_that_are_no_users() {
        for (text, why) in [
            ("", "names no user"),
            ("\n\n", "names no user"),
            ("bob:secret\nnocolon\n", "line 2: expected user:password"),
            ("bob:$6$short", "line 1: a hashed password that cannot be checked"),
            ("bob:$6$rounds=900000$salt$abc", "line 1: more rounds"),
            ("bob:$6$rounds=x$salt$abc", "line 1: more rounds"),
        ] {
            let said = users(text).expect_err(text);
            assert!(said.contains(why), "{text:?} gave {said}");
        }
    }
}
