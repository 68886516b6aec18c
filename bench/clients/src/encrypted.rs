//! A server that encrypts, with a certificate made for it. Owns both; asks nothing of it beyond
//! whether it is there.

use bench::Result;
use bench::server::{Flags, Server, ServerSpec};
use distcache::client::{Client, Config, Tls};
use rcgen::generate_simple_self_signed;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

const START_TIME_MAX: Duration = Duration::from_secs(10);
const START_POLL: Duration = Duration::from_millis(20);

pub struct Encrypted {
    server: Server,
    /// A PEM file with the authority that vouches for it.
    pub roots: PathBuf,
}

impl Encrypted {
    /// Starts one; `None` if the program does not encrypt.
    pub fn start(spec: &ServerSpec, flags: &Flags, folder: &Path) -> Result<Option<Self>> {
        let made = generate_simple_self_signed(["127.0.0.1".to_owned()])?;
        let (roots, key) = (folder.join("certificate.pem"), folder.join("key.pem"));
        fs::write(&roots, made.cert.pem())?;
        fs::write(&key, made.signing_key.serialize_pem())?;
        let files = format!("ssl_chain_cert={},ssl_key={}", roots.display(), key.display());
        let mut server = Server::spawn(&spec.with(["-Z", "-o", &files]), flags)?;
        let deadline = Instant::now() + START_TIME_MAX;
        loop {
            if server.check_running().is_err() {
                return Ok(None);
            }
            let encrypted = Self { server, roots: roots.clone() };
            let answer = encrypted.client()?.version().remove(0).1;
            match answer {
                Ok(_) => return Ok(Some(encrypted)),
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(START_POLL),
            }
            server = encrypted.server;
        }
    }

    pub fn address(&self) -> String {
        self.server.address.to_string()
    }

    pub fn client(&self) -> Result<Client> {
        let tls = Some(Tls { roots: Some(self.roots.clone()), ..Tls::default() });
        let config = Config { tls, check_every: None, ..Config::default() };
        Ok(Client::with_config([self.address()], config)?)
    }
}
