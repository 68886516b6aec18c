//! TLS (`-Z`): certificates and how they are read again, and a socket that encrypts.
//!
//! [`Tls`] has what listeners need to accept; reading certificates again replaces it for
//! connections to come, and those that are there go on with what they began with. [`TlsStream`]
//! is `Read` and `Write` over a socket that does not block, so that the conversation on it knows
//! nothing of it:
//!
//! ```text
//! read   socket -> records -> plain bytes     a handshake moves on here, with no bytes to give
//! write  plain bytes -> records -> socket     records that the socket does not take wait here,
//! flush              records -> socket        and nothing more is taken while they do
//! ```
//!
//! All of the protocol is rustls's. Never reads a file but those of [`TlsConfig`].

use crate::server::config::{ClientCertificates, KeyFormat, TlsConfig, TlsVersion};
use crate::system;
use mio::net::TcpStream;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CipherSuite, HandshakeKind, InconsistentKeys, RootCertStore, ServerConfig, ServerConnection,
    SupportedCipherSuite, SupportedProtocolVersion,
};
use std::fmt;
use std::fs::File;
use std::io::{self, IoSlice, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// Largest file of certificates or keys.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// Records that wait for the socket, and plain bytes taken at a time, for each connection.
const BUFFER_BYTES_MAX: usize = 64 << 10;

/// Plain bytes taken by one write, if the socket takes their records at once.
const WRITE_BYTES_MAX: usize = 1 << 20;

/// Reads of the socket for one read of plain bytes: a client that sends records without any is not
/// listened to for ever. rustls reads 4 KiB and more at a time.
const SOCKET_READS_MAX: usize = 32;

/// What rustls keeps a buffer for on an idle connection.
const RECORDS_BYTES_USUAL: usize = 2 << 10;

/// Sessions that clients may resume (`-o ssl_session_cache`), for each set of certificates.
const SESSIONS_MAX: usize = 8 << 10;

/// What `-o ssl_ciphers` may name: OpenSSL's names of the cipher suites of TLS 1.2 there are.
const CIPHERS: [(&str, CipherSuite); 6] = [
    ("ECDHE-ECDSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-ECDSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-ECDSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256),
    ("ECDHE-RSA-AES256-GCM-SHA384", CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384),
    ("ECDHE-RSA-AES128-GCM-SHA256", CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256),
    ("ECDHE-RSA-CHACHA20-POLY1305", CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256),
];

/// Words of OpenSSL's that stand for all of them.
const CIPHERS_ALL: [&str; 5] = ["ALL", "DEFAULT", "HIGH", "ECDHE", "EECDH"];

/// What OpenSSL's lists forbid with `!` or `-`, and there is none of.
const CIPHERS_ABSENT: [&str; 26] = [
    "3DES", "ADH", "AECDH", "CAMELLIA", "DES", "DH", "DHE", "DSS", "EDH", "EXP", "EXPORT", "IDEA",
    "LOW", "MD5", "MEDIUM", "NULL", "PSK", "RC2", "RC4", "SEED", "SHA", "SHA1", "SRP", "aNULL",
    "eNULL", "kRSA",
];

/// Why certificates cannot be used, in memcached's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsError {
    what: &'static str,
    file: Option<PathBuf>,
    why: String,
}

impl TlsError {
    fn of_file(what: &'static str, file: &Path, why: impl fmt::Display) -> Self {
        Self { what, file: Some(file.to_owned()), why: why.to_string() }
    }

    fn other(what: &'static str, why: impl fmt::Display) -> Self {
        Self { what, file: None, why: why.to_string() }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(out, "{}: {} : {}", self.what, file.display(), self.why),
            None => write!(out, "{}: {}", self.what, self.why),
        }
    }
}

impl std::error::Error for TlsError {}

/// What has happened on TLS connections.
#[derive(Debug, Default)]
pub struct Counters {
    /// Handshakes that ended well and did not resume a session.
    pub new_sessions: AtomicU64,
    /// Handshakes that failed.
    pub handshake_errors: AtomicU64,
    /// Connections that failed after it.
    pub protocol_errors: AtomicU64,
}

impl Counters {
    /// Sets them to 0.
    pub fn reset(&self) {
        for counter in [&self.new_sessions, &self.handshake_errors, &self.protocol_errors] {
            counter.store(0, Ordering::Relaxed);
        }
    }
}

/// See the module's text.
#[derive(Debug)]
pub struct Tls {
    settings: TlsConfig,
    served: RwLock<Served>,
    /// What has happened.
    pub counters: Arc<Counters>,
    /// When certificates were read, on the server's clock.
    refreshed_seconds: AtomicU64,
}

/// What connections are accepted with. They share no sessions: one that began where no client
/// certificate is asked for must not be resumed where one is.
#[derive(Debug)]
struct Served {
    without: Arc<ServerConfig>,
    /// With client certificates, if there is an authority to verify them by.
    optional: Option<Arc<ServerConfig>>,
    required: Option<Arc<ServerConfig>>,
}

impl Tls {
    /// Reads the certificates.
    ///
    /// # Errors
    /// Which file cannot be used, and why.
    pub fn open(settings: &TlsConfig) -> Result<Self, TlsError> {
        Ok(Self {
            settings: settings.clone(),
            served: RwLock::new(load(settings)?),
            counters: Arc::default(),
            refreshed_seconds: AtomicU64::new(0),
        })
    }

    /// Reads the certificates again, for connections to come.
    ///
    /// # Errors
    /// Which file cannot be used, and why; then nothing changes.
    pub fn refresh(&self, now_seconds: u64) -> Result<(), TlsError> {
        let loaded = load(&self.settings)?;
        *self.served.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        self.note_refreshed(now_seconds);
        Ok(())
    }

    /// The certificates are those of this moment.
    pub fn note_refreshed(&self, now_seconds: u64) {
        self.refreshed_seconds.store(now_seconds, Ordering::Relaxed);
    }

    /// Since certificates were read.
    pub fn seconds_since_refresh(&self, now_seconds: u64) -> u64 {
        now_seconds.saturating_sub(self.refreshed_seconds.load(Ordering::Relaxed))
    }

    /// A connection on a socket that was accepted. Nothing is read or written yet.
    ///
    /// # Errors
    /// Client certificates are asked for, and there is no authority to verify them by.
    pub fn accept(&self, socket: TcpStream, clients: ClientCertificates) -> io::Result<TlsStream> {
        let config = {
            let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
            match clients {
                ClientCertificates::Ignored => Some(Arc::clone(&served.without)),
                ClientCertificates::Optional => served.optional.clone(),
                ClientCertificates::Required => served.required.clone(),
            }
        };
        let config = config.ok_or_else(|| io::Error::other("no ssl_ca_cert"))?;
        let mut tls = ServerConnection::new(config).map_err(io::Error::other)?;
        tls.set_buffer_limit(Some(BUFFER_BYTES_MAX));
        let counters = Arc::clone(&self.counters);
        Ok(TlsStream {
            socket,
            tls,
            counters,
            has_more: true,
            said_goodbye: false,
            has_grown: false,
        })
    }
}

// Reading certificates

fn load(settings: &TlsConfig) -> Result<Served, TlsError> {
    let provider = Arc::new(provider(settings.ciphers.as_deref())?);
    let certificate = Arc::new(SingleCertAndKey::from(certified_key(settings, &provider)?));
    let config = |verifier: Option<Arc<dyn ClientCertVerifier>>| {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions(settings.min_version))
            .map_err(|why| TlsError::other("Error setting the protocol version", why))?;
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let certificate = Arc::<SingleCertAndKey>::clone(&certificate);
        let mut config = builder.with_cert_resolver(certificate);
        if settings.session_cache {
            config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        } else {
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok(Arc::new(config))
    };
    let (optional, required) = match &settings.ca_cert {
        Some(file) => {
            let (optional, required) = verifiers(file, &provider)?;
            (Some(config(Some(optional))?), Some(config(Some(required))?))
        }
        None => (None, None),
    };
    Ok(Served { without: config(None)?, optional, required })
}

fn versions(min: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    match min {
        TlsVersion::V1_2 => &FROM_1_2,
        TlsVersion::V1_3 => &FROM_1_2[..1],
    }
}

fn certified_key(
    settings: &TlsConfig,
    provider: &CryptoProvider,
) -> Result<CertifiedKey, TlsError> {
    let file = &settings.chain_cert;
    let refused = |why: String| TlsError::of_file("Error loading the certificate chain", file, why);
    let chain = certificates(file).map_err(refused)?;

    let file = &settings.key;
    let refused = |why: String| TlsError::of_file("Error loading the key", file, why);
    let bytes = read_file(file).map_err(refused)?;
    let key = match settings.key_format {
        KeyFormat::Pem => PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
            refused("no private key in PEM format that is not encrypted".to_owned())
        })?,
        KeyFormat::Der => PrivateKeyDer::try_from(bytes).map_err(|why| refused(why.to_owned()))?,
    };
    let key = provider.key_provider.load_private_key(key);
    let certified = CertifiedKey::new(chain, key.map_err(|_| refused(KEYS.to_owned()))?);
    match certified.keys_match() {
        // A kind of certificate whose key rustls cannot read: clients will see.
        Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(certified),
        // One of X.509 version 1, as "openssl x509 -req" makes them without extensions. rustls does
        // not read them; to serve one nothing has to be read.
        Err(rustls::Error::InvalidCertificate(why)) if holds_its_key(&certified) => {
            log::warn!(
                "{}: {why:?}: clients that use OpenSSL take it, others may not; version 3 is made \
                 with -extfile or -addext",
                settings.chain_cert.display()
            );
            Ok(certified)
        }
        Err(why) => Err(TlsError::other("Error validating the certificate", why)),
    }
}

/// What to do about a key of another kind.
const KEYS: &str = "no key of a kind that is offered, which are RSA from 2048 bits, ECDSA with \
     P-256 or P-384, and Ed25519: \"openssl ecparam -name prime256v1 -genkey -noout\" makes one \
     (and the certificate has to be made anew with it)";

/// Whether a certificate has the public key in it, as the standard writes keys in certificates.
fn holds_its_key(certified: &CertifiedKey) -> bool {
    let (key, certificate) = (certified.key.public_key(), certified.end_entity_cert());
    match (key, certificate) {
        (Some(key), Ok(certificate)) => {
            memchr::memmem::find(certificate.as_ref(), key.as_ref()).is_some()
        }
        _ => false,
    }
}

type Verifier = Arc<dyn ClientCertVerifier>;

/// Those that let a client without a certificate pass, and those that do not.
fn verifiers(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<(Verifier, Verifier), TlsError> {
    let refused = |why: String| TlsError::of_file("Error loading the CA certificate", file, why);
    let mut roots = RootCertStore::empty();
    let (_, unreadable) = roots.add_parsable_certificates(certificates(file).map_err(refused)?);
    if unreadable > 0 {
        log::warn!("{}: {unreadable} certificates cannot be used", file.display());
    }
    let roots = Arc::new(roots);
    let builder =
        || WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
    let optional = builder().allow_unauthenticated().build();
    let required = builder().build();
    let refused = |why: rustls::server::VerifierBuilderError| refused(why.to_string());
    Ok((optional.map_err(refused)?, required.map_err(refused)?))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = read_file(file)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in PEM format".to_owned()),
        Ok(found) => Ok(found),
        Err(why) => Err(why.to_string()),
    }
}

fn read_file(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|why| why.to_string())?;
    let read = opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    match read {
        Ok(count) if count as u64 > FILE_BYTES_MAX => Err("it is too large".to_owned()),
        Ok(_) => Ok(bytes),
        Err(why) => Err(why.to_string()),
    }
}

fn provider(ciphers: Option<&str>) -> Result<CryptoProvider, TlsError> {
    let mut provider = ring::default_provider();
    if let Some(list) = ciphers {
        let refused = |why| TlsError::other("Error setting the provided cipher(s)", why);
        let chosen = choose_ciphers(list).map_err(refused)?.chosen;
        provider.cipher_suites.retain(|suite| {
            matches!(suite, SupportedCipherSuite::Tls13(_)) || chosen.contains(&suite.suite())
        });
    }
    Ok(provider)
}

/// What a list of `-o ssl_ciphers` means.
#[derive(Debug, PartialEq, Eq)]
pub struct CipherChoice {
    chosen: Vec<CipherSuite>,
    /// Names that are no cipher suite of ours.
    pub unknown: Vec<String>,
}

/// Reads a list of cipher suites in OpenSSL's form. As there it is about TLS 1.2: the suites of
/// TLS 1.3 are always offered. What is not understood may only make the choice smaller.
///
/// # Errors
/// The list leaves none, or forbids something that is not understood.
pub fn choose_ciphers(list: &str) -> Result<CipherChoice, String> {
    let words = || list.split([':', ' ']).filter(|word| !word.is_empty());
    let known = |name: &str| CIPHERS.iter().find(|cipher| cipher.0 == name).map(|cipher| cipher.1);
    let mut choice = CipherChoice { chosen: Vec::new(), unknown: Vec::new() };
    for word in words().filter(|word| !word.starts_with(['!', '-'])) {
        if CIPHERS_ALL.contains(&word) {
            choice.chosen.extend(CIPHERS.iter().map(|cipher| cipher.1));
        } else {
            match known(word) {
                Some(suite) => choice.chosen.push(suite),
                None => choice.unknown.push(word.to_owned()),
            }
        }
    }
    for word in words().filter(|word| word.starts_with(['!', '-'])) {
        let name = &word[1..];
        match known(name) {
            Some(suite) => choice.chosen.retain(|chosen| *chosen != suite),
            None if CIPHERS_ABSENT.contains(&name) => {}
            None => return Err(format!("{word} is not understood; name those to be used")),
        }
    }
    if choice.chosen.is_empty() {
        let names = CIPHERS.map(|cipher| cipher.0).join(", ");
        return Err(format!("{list} leaves none; there are {names}"));
    }
    Ok(choice)
}

// A connection

/// See the module's text. Says goodbye when it is dropped.
pub struct TlsStream {
    socket: TcpStream,
    tls: ServerConnection,
    counters: Arc<Counters>,
    /// There may be more to read, although the last read was a short one.
    has_more: bool,
    /// The other end has said that it will send no more.
    said_goodbye: bool,
    /// rustls may have grown its buffer: the next read of an empty socket lets it shrink again.
    has_grown: bool,
}

/// What there is to read without asking the socket.
enum Plain {
    Bytes(usize),
    Nothing,
    /// The other end will send no more.
    End,
}

/// A socket that tells whether it gave less than was asked for, which means that it is empty.
struct Measured<'a> {
    socket: &'a mut TcpStream,
    was_short: bool,
    bytes: usize,
}

impl Read for Measured<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.bytes = self.socket.read(into)?;
        self.was_short = system::SHORT_READ_EMPTIES && self.bytes < into.len();
        Ok(self.bytes)
    }
}

impl TlsStream {
    /// The socket, to register it and ask for addresses.
    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// The same, to be changed.
    pub fn socket_mut(&mut self) -> &mut TcpStream {
        &mut self.socket
    }

    /// The last read has not emptied the socket, or what was read of it.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Records wait for the socket to take them.
    pub fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    fn take_plain(&mut self, into: &mut [u8]) -> Plain {
        match self.tls.reader().read(into) {
            Ok(0) => Plain::End,
            Ok(bytes) => Plain::Bytes(bytes),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Plain::Nothing,
            // The socket ended without a goodbye. Somebody else may have ended it: only whole
            // commands are executed, so nothing is taken for more than was said.
            Err(_) => Plain::End,
        }
    }

    /// The socket is empty. A goodbye that came with the last bytes is not read yet, and nothing
    /// else will come to point to it.
    fn emptied_after(&mut self, filled: usize) -> usize {
        self.has_more = self.said_goodbye;
        filled
    }

    /// One read of the socket. Answers whether that emptied it.
    fn receive(&mut self) -> io::Result<bool> {
        let mut measured = Measured { socket: &mut self.socket, was_short: false, bytes: 0 };
        match self.tls.read_tls(&mut measured) {
            Ok(_) => {
                let was_short = measured.was_short;
                self.has_grown |= RECORDS_BYTES_USUAL < measured.bytes;
                self.process()?;
                Ok(was_short)
            }
            Err(error) => match error.kind() {
                io::ErrorKind::Interrupted => Ok(false),
                _ => Err(error),
            },
        }
    }

    fn process(&mut self) -> io::Result<()> {
        let was_handshaking = self.tls.is_handshaking();
        match self.tls.process_new_packets() {
            Ok(state) => self.said_goodbye = state.peer_has_closed(),
            Err(error) => {
                let counter = match was_handshaking {
                    true => &self.counters.handshake_errors,
                    false => &self.counters.protocol_errors,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                // Tells the other end why, if it still listens.
                let _ = self.send();
                return Err(io::Error::new(io::ErrorKind::InvalidData, error));
            }
        }
        let is_through = was_handshaking && !self.tls.is_handshaking();
        if is_through && self.tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            self.counters.new_sessions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Sends what waits. `WouldBlock`: the socket does not take all of it.
    fn send(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As [`Self::send`], when it is no matter whether all of it goes now.
    fn send_some(&mut self) -> io::Result<()> {
        match self.send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            sent => sent,
        }
    }
}

impl Read for TlsStream {
    /// `Interrupted`: nothing has come yet, and there is more to look at.
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let (mut filled, mut emptied) = (0, false);
        self.has_more = true;
        for _ in 0..SOCKET_READS_MAX {
            match self.take_plain(&mut into[filled..]) {
                // After bytes the end shows again at the next read.
                Plain::End => return Ok(filled),
                Plain::Bytes(bytes) => filled += bytes,
                Plain::Nothing => {}
            }
            if filled == into.len() {
                return Ok(filled);
            }
            if emptied && filled > 0 && !self.has_grown {
                return Ok(self.emptied_after(filled));
            }
            match self.receive() {
                Ok(was_short) => emptied = was_short,
                // Without bytes to give, the socket itself has to say that it is empty.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.has_grown = false;
                    let filled = self.emptied_after(filled);
                    return if filled > 0 { Ok(filled) } else { Err(error) };
                }
                Err(error) => return Err(error),
            }
        }
        if filled > 0 { Ok(filled) } else { Err(io::ErrorKind::Interrupted.into()) }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.send()?;
        let mut taken = self.tls.writer().write_vectored(slices)?;
        self.send_some()?;
        if taken == slices.iter().map(|slice| slice.len()).sum::<usize>() {
            return Ok(taken);
        }
        // The caller would move its bytes for every buffer's worth.
        let mut slices = slices.to_vec();
        let mut rest = &mut slices[..];
        IoSlice::advance_slices(&mut rest, taken);
        while !rest.is_empty() && taken < WRITE_BYTES_MAX && !self.has_unsent() {
            let more = self.tls.writer().write_vectored(rest)?;
            IoSlice::advance_slices(&mut rest, more);
            taken += more;
            self.send_some()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl fmt::Debug for TlsStream {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("TlsStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        if !self.tls.is_handshaking() {
            self.tls.send_close_notify();
        }
        // The other end may be gone, or not take it.
        let _ = self.send();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &str) -> Result<Vec<&'static str>, String> {
        let choice = choose_ciphers(list)?;
        let is_chosen = |cipher: &&(&str, CipherSuite)| choice.chosen.contains(&cipher.1);
        Ok(CIPHERS.iter().filter(is_chosen).map(|cipher| cipher.0).collect())
    }

    #[test]
    fn lists_of_ciphers_choose_or_are_refused() {
        let all = CIPHERS.map(|cipher| cipher.0).to_vec();
        let one = "ECDHE-RSA-AES128-GCM-SHA256";
        for (list, expected) in [
            (one, vec![one]),
            ("HIGH", all.clone()),
            ("HIGH:!aNULL:!MD5:!RC4", all.clone()),
            ("!aNULL HIGH", all.clone()),
            ("AES128-SHA:ECDHE-RSA-AES128-GCM-SHA256:", vec![one]),
            ("!ECDHE-RSA-AES128-GCM-SHA256:ALL", {
                all.iter().copied().filter(|name| *name != one).collect()
            }),
        ] {
            assert_eq!(names(list), Ok(expected), "{list}");
        }
        for (list, why) in [
            ("AES128-SHA", "leaves none"),
            ("", "leaves none"),
            ("!aNULL", "leaves none"),
            ("ECDHE-RSA-AES128-GCM-SHA256:-ECDHE-RSA-AES128-GCM-SHA256", "leaves none"),
            ("HIGH:!AES128", "!AES128 is not understood"),
        ] {
            let refused = names(list).expect_err(list);
            assert!(refused.contains(why), "{list}: {refused}");
        }
        assert_eq!(choose_ciphers("HIGH:KALYNA").unwrap().unknown, ["KALYNA"]);
    }

    #[test]
    fn chosen_ciphers_are_what_is_offered() {
        let offered = |list| provider(Some(list)).unwrap().cipher_suites;
        let is_new =
            |suite: &&SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
        let suites = offered("ECDHE-RSA-AES128-GCM-SHA256");
        assert_eq!(suites.iter().filter(is_new).count(), 3);
        assert_eq!(suites.len(), 4);
        // Every name of the table is one that the provider has.
        assert_eq!(offered("HIGH").len(), 3 + CIPHERS.len());
        assert_eq!(offered("HIGH").len(), ring::default_provider().cipher_suites.len());
    }
}
