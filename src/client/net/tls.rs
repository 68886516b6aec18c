//! Encrypted connections: which certificates are believed, and TLS as bytes in and out. Owns
//! rustls; opens no socket and never waits. There is no way to believe every certificate: who does
//! not check may as well not encrypt.

use crate::client::error::Error;
use crate::client::placement::node::Node;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How connections are encrypted, for [`Config::tls`](crate::client::Config::tls). The default
/// believes what the system believes and shows no certificate.
///
/// TLS 1.3 and 1.2 are spoken. Unix sockets stay as they are.
///
/// ```no_run
/// use distcache::client::{Client, Config, Tls};
///
/// let tls = Tls { roots: Some("ca.pem".into()), ..Tls::default() };
/// let config = Config { tls: Some(tls), ..Config::default() };
/// let client = Client::with_config(["cache1.example:11211"], config)?;
/// # Ok::<(), distcache::client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// A PEM file with the authorities that vouch for servers; `None` is those that the system
    /// knows. A cache's authority is mostly the operator's own.
    pub roots: Option<PathBuf>,
    /// The name that servers' certificates must have; `None` is each server's host. Servers found
    /// by `Discovery::Dns` have addresses for hosts.
    pub server_name: Option<String>,
    /// What we show to servers that ask who we are.
    pub certificate: Option<ClientCertificate>,
}

/// A certificate of our own and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// A PEM file: the certificate, then those that vouch for it.
    pub chain: PathBuf,
    /// A PEM file with the private key.
    pub key: PathBuf,
}

/// Settings with their files read.
#[derive(Debug, Clone)]
pub(in crate::client) struct Prepared {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

fn wrong(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::Config(format!("TLS: {}: {what}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(path, error))?;
    let found: Vec<_> = read.collect::<Result<_, _>>().map_err(|error| wrong(path, error))?;
    if found.is_empty() { Err(wrong(path, "no certificate in it")) } else { Ok(found) }
}

impl Tls {
    /// Reads the files.
    pub(in crate::client) fn prepare(&self) -> Result<Prepared, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let failed = |error: rustls::Error| Error::Config(format!("TLS: {error}"));
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(self.authorities()?);
        let config = match &self.certificate {
            None => builder.with_no_client_auth(),
            Some(ClientCertificate { chain, key }) => {
                let secret = PrivateKeyDer::from_pem_file(key);
                let secret = secret.map_err(|error| wrong(key, error))?;
                let chain = certificates(chain)?;
                builder.with_client_auth_cert(chain, secret).map_err(|error| wrong(key, error))?
            }
        };
        let parse = |name: &String| {
            let parsed = ServerName::try_from(name.clone());
            parsed.map_err(|_| Error::Config(format!("TLS: {name:?} is no name of a server")))
        };
        let server_name = self.server_name.as_ref().map(parse).transpose()?;
        Ok(Prepared { config: Arc::new(config), server_name })
    }

    fn authorities(&self) -> Result<RootCertStore, Error> {
        let mut store = RootCertStore::empty();
        if let Some(path) = &self.roots {
            for certificate in certificates(path)? {
                store.add(certificate).map_err(|error| wrong(path, error))?;
            }
            return Ok(store);
        }
        let found = rustls_native_certs::load_native_certs();
        // Systems carry certificates that nobody can read any more: those are left out.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let why = found.errors.first().map(ToString::to_string).unwrap_or_default();
            return Err(Error::Config(format!(
                "TLS: the system names no authority; set Tls::roots {why}"
            )));
        }
        Ok(store)
    }
}

impl Prepared {
    /// The session of a new connection; none on a Unix socket.
    pub(crate) fn session(&self, node: &Node) -> Result<Option<Session>, Error> {
        if node.unix_path().is_some() {
            return Ok(None);
        }
        let failed = |cause: String| Error::Tls { server: node.name(), cause, in_doubt: false };
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => ServerName::try_from(node.host().to_owned())
                .map_err(|_| failed("its host is no name; set Tls::server_name".into()))?,
        };
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        let connection = connection.map_err(|error| failed(error.to_string()))?;
        Ok(Some(Session { connection, records: Records::default() }))
    }
}

/// TLS on one connection.
#[derive(Debug)]
pub(in crate::client) struct Session {
    connection: ClientConnection,
    records: Records,
}

/// Where in a record the bytes from the server have come to.
#[derive(Debug, Default)]
struct Records {
    head: [u8; 5],
    head_bytes: usize,
    left: usize,
}

impl Records {
    fn pass(&mut self, mut bytes: &[u8]) {
        while let Some((first, behind)) = bytes.split_first() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len());
                self.left -= taken;
                bytes = &bytes[taken..];
                continue;
            }
            // Kind, version, length.
            self.head[self.head_bytes] = *first;
            self.head_bytes += 1;
            bytes = behind;
            if self.head_bytes == self.head.len() {
                self.head_bytes = 0;
                self.left = usize::from(u16::from_be_bytes([self.head[3], self.head[4]]));
            }
        }
    }

    fn is_at_boundary(&self) -> bool {
        self.head_bytes == 0 && self.left == 0
    }
}

/// A reader whose bytes are followed.
struct Followed<'r, R> {
    reader: &'r mut R,
    records: &'r mut Records,
}

impl<R: Read> Read for Followed<'_, R> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(room)?;
        self.records.pass(&room[..count]);
        Ok(count)
    }
}

fn is_would_block(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock
}

impl Session {
    pub(crate) fn handshake(&mut self, io: &mut (impl Read + Write)) -> io::Result<()> {
        loop {
            self.flush(io)?;
            if !self.connection.is_handshaking() {
                return Ok(());
            }
            if self.read(io)? == 0 {
                return Err(io::Error::new(
                    ErrorKind::UnexpectedEof,
                    "it closed the connection during the TLS handshake",
                ));
            }
        }
    }

    /// What is owed goes first, so that no more than one piece is ever held here.
    pub(crate) fn send(&mut self, io: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
        self.flush(io)?;
        let count = self.connection.writer().write(bytes)?;
        match self.flush(io) {
            Err(error) if !is_would_block(&error) => Err(error),
            _ => Ok(count),
        }
    }

    pub(crate) fn owes(&self) -> bool {
        self.connection.wants_write()
    }

    pub(crate) fn flush(&mut self, io: &mut impl Write) -> io::Result<()> {
        while self.connection.wants_write() {
            if self.connection.write_tls(io)? == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
        }
        Ok(())
    }

    pub(crate) fn receive(
        &mut self,
        io: &mut (impl Read + Write),
        room: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            match self.connection.reader().read(room) {
                Err(error) if is_would_block(&error) => {}
                // Replies say where they end, so an end without a farewell hides nothing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                result => return result,
            }
            // An answer to the server's changes of keys, say.
            match self.flush(io) {
                Err(error) if !is_would_block(&error) => return Err(error),
                _ => {}
            }
            self.read(io)?;
        }
    }

    /// Reads once from the socket and decrypts what is complete.
    fn read(&mut self, io: &mut (impl Read + Write)) -> io::Result<usize> {
        let mut followed = Followed { reader: io, records: &mut self.records };
        let count = self.connection.read_tls(&mut followed)?;
        if let Err(error) = self.connection.process_new_packets() {
            // Tells the server why, if that is possible at once.
            let _ = self.flush(io);
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        Ok(count)
    }

    pub(crate) fn holds(&mut self) -> bool {
        let state = self.connection.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }

    pub(crate) fn is_quiet(&mut self, io: &mut (impl Read + Write)) -> bool {
        loop {
            match self.read(io) {
                Err(error) if is_would_block(&error) => break,
                Err(_) | Ok(0) => return false,
                Ok(_) if self.holds() => return false,
                Ok(_) => {}
            }
        }
        // The rest of a record that has begun might be anything.
        let state = self.connection.process_new_packets();
        state.is_ok_and(|state| state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed())
            && self.records.is_at_boundary()
    }
}

/// What TLS says of a failure, if it was one of TLS.
pub(in crate::client) fn cause(error: &io::Error) -> Option<String> {
    let inner = error.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(inner.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_followed() {
        let bytes = b"\x17\x03\x03\x00\x02ab\x17\x03\x03\x00\x00\x17\x03\x03\x01\x00";
        let whole = [&bytes[..], &[0; 256]].concat();
        for piece_bytes in [1, 2, 3, 7, 300] {
            let mut records = Records::default();
            let mut at = 0;
            for piece in whole.chunks(piece_bytes) {
                records.pass(piece);
                at += piece.len();
                let boundary = [7, 12, whole.len()].contains(&at);
                assert_eq!(records.is_at_boundary(), boundary, "at {at} by {piece_bytes}");
            }
        }
    }
}
