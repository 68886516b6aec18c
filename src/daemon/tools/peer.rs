//! A server that items are read from or stored in: how it is reached, and the way there.
//!
//! Owns the connection: TCP, TLS if asked for, and the login of the text protocol. What is said on
//! it then is `load`'s and `migrate`'s. A server is not waited for without end.

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A server that is silent for so long is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4096;

/// What is read from a server at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// A server, as the command line names it.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    /// `host:port`
    pub address: String,
    /// Who logs in there, if somebody has to.
    pub user: Option<String>,
    /// The password.
    pub password: Option<String>,
    /// The authorities of its certificate (PEM); without, TLS is not spoken.
    pub tls_ca: Option<PathBuf>,
    /// A certificate and its key (PEM), if the server asks for one.
    pub tls_cert: Option<(PathBuf, PathBuf)>,
}

/// The way to a server, and what has been read from it ahead.
pub(super) type Link = BufReader<Socket>;

/// The way to a server.
pub(super) enum Socket {
    /// As it is.
    Plain(TcpStream),
    /// Encrypted.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Peer {
    /// Connects, and logs in.
    ///
    /// # Errors
    /// It does not answer, its certificate is none of the authorities', or the login is refused.
    pub(super) fn connect(&self) -> io::Result<Link> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let socket = match &self.tls_ca {
            Some(authorities) => Socket::Tls(Box::new(self.encrypt(stream, authorities)?)),
            None => Socket::Plain(stream),
        };
        let mut link = BufReader::with_capacity(BUFFER_BYTES, socket);
        if let Some(user) = &self.user {
            self.log_in(&mut link, user)?;
        }
        Ok(link)
    }

    fn encrypt(
        &self,
        stream: TcpStream,
        authorities: &Path,
    ) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let mut roots = RootCertStore::empty();
        for authority in certificates(authorities)? {
            roots.add(authority).map_err(|why| of_file(authorities, why))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots);
        let config = match &self.tls_cert {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let found = PrivateKeyDer::from_pem_file(key).map_err(|why| of_file(key, why))?;
                let built = builder.with_client_auth_cert(certificates(chain)?, found);
                built.map_err(|why| of_file(chain, why))?
            }
        };
        let host = self.address.rsplit_once(':').map_or(&*self.address, |(host, _)| host);
        let host = host.trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(host).map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        let mut encrypted = StreamOwned::new(session, stream);
        // The handshake, so that what is wrong with it is not taken for something else.
        encrypted.conn.complete_io(&mut encrypted.sock)?;
        Ok(encrypted)
    }

    fn log_in(&self, link: &mut Link, user: &str) -> io::Result<()> {
        let said = format!("{user} {}", self.password.as_deref().unwrap_or_default());
        let login = format!("set login 0 0 {}\r\n{said}\r\n", said.len());
        link.get_mut().write_all(login.as_bytes())?;
        match &read_line(link)?[..] {
            b"STORED" => Ok(()),
            other => {
                let other = String::from_utf8_lossy(other);
                Err(io::Error::other(format!("the login of {user} is refused: {other:?}")))
            }
        }
    }
}

fn certificates(path: &Path) -> io::Result<Vec<CertificateDer<'static>>> {
    let found = CertificateDer::pem_file_iter(path).map_err(|why| of_file(path, why))?;
    found.collect::<Result<_, _>>().map_err(|why| of_file(path, why))
}

fn of_file(path: &Path, why: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {why}", path.display()))
}

/// Reads a line without its end.
pub(super) fn read_line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    io::Read::take(&mut *from, ANSWER_BYTES_MAX).read_until(b'\n', &mut line)?;
    if line.pop() != Some(b'\n') {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server hung up"));
    }
    line.truncate(line.strip_suffix(b"\r").map_or(line.len(), <[u8]>::len));
    Ok(line)
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.flush(),
            Self::Tls(stream) => stream.flush(),
        }
    }
}
