//! `-Z` and the extended options that go with it.
//!
//! Owns their values and what about them has to be refused or said: TLS is rustls's, which has no
//! versions below 1.2 and few of OpenSSL's ciphers. Never opens a file; whether the certificates
//! can be used is found out in `crate::server::connection::tls`.

use super::values::{COUNT_MAX, unsigned};
use super::{Draft, Exit};
use crate::server::config::{ClientCertificates, KeyFormat, TlsConfig, TlsVersion};
use crate::server::connection::tls::choose_ciphers;
use std::ffi::OsStr;
use std::path::PathBuf;

/// What has been read of these options so far.
#[derive(Default)]
pub(super) struct TlsDraft {
    /// `-Z`
    pub(super) enabled: bool,
    settings: TlsConfig,
    chain_cert: Option<PathBuf>,
    key: Option<PathBuf>,
    /// Those of `-o` that need `-Z`.
    given: Vec<&'static str>,
    /// What cannot be followed, if there is TLS.
    refused: Option<String>,
    /// To be said once.
    warnings: Vec<String>,
}

/// The settings, if there is TLS; what they leave out is refused, what they cannot have is said.
pub(super) fn finish(draft: &mut Draft) -> Result<Option<TlsConfig>, Exit> {
    let TlsDraft { enabled, mut settings, chain_cert, key, given, refused, warnings } =
        std::mem::take(&mut draft.tls);
    if !enabled {
        if !given.is_empty() {
            draft.warn(format!("no effect without -Z: -o {}", given.join(", ")));
        }
        return Ok(None);
    }
    if let Some(why) = refused {
        return Err(Exit::failure(why));
    }
    let missing = |name| Exit::usage(format!("-Z needs -o {name}=FILE"));
    settings.chain_cert = chain_cert.ok_or_else(|| missing("ssl_chain_cert"))?;
    settings.key = key.ok_or_else(|| missing("ssl_key"))?;
    for warning in warnings {
        draft.warn(warning);
    }
    match settings.clients {
        ClientCertificates::Required if settings.ca_cert.is_none() => {
            return Err(Exit::usage(
                "-o ssl_verify_mode: certificates of clients are verified by the authorities of \
                 -o ssl_ca_cert=FILE",
            ));
        }
        ClientCertificates::Optional if settings.ca_cert.is_none() => {
            draft.warn("-o ssl_verify_mode=1 has no effect without ssl_ca_cert");
            settings.clients = ClientCertificates::Ignored;
        }
        _ => {}
    }
    if draft.accepted().tcp_port == 0 {
        return Err(Exit::usage("ERROR: You cannot enable SSL without a TCP port."));
    }
    if draft.socket.is_some() {
        draft.warn("-Z has no effect on the Unix socket (-s): it is served without TLS");
    }
    Ok(Some(settings))
}

fn note<'a>(draft: &'a mut Draft, name: &'static str) -> &'a mut TlsDraft {
    let tls = &mut draft.tls;
    if !tls.given.contains(&name) {
        tls.given.push(name);
    }
    tls
}

fn file(name: &str, value: Option<&str>) -> Result<PathBuf, String> {
    match value {
        Some(value) if !value.is_empty() => Ok(PathBuf::from(value)),
        _ => Err(format!("-o {name} needs a file: -o {name}=FILE")),
    }
}

fn number(name: &str, value: Option<&str>, max: i64) -> Result<u32, String> {
    let flag = format!("-o {name}");
    unsigned(&flag, OsStr::new(value.unwrap_or_default()), 0..=max)
}

// One function for each option, in the order of the table of `-o`

pub(super) fn chain_cert(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    note(draft, "ssl_chain_cert").chain_cert = Some(file("ssl_chain_cert", value)?);
    Ok(())
}

pub(super) fn key(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    note(draft, "ssl_key").key = Some(file("ssl_key", value)?);
    Ok(())
}

/// memcached takes the numbers only, OpenSSL's; its help has the words.
pub(super) fn key_format(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let format = match value {
        Some("1" | "PEM") => KeyFormat::Pem,
        Some("2" | "DER") => KeyFormat::Der,
        _ => return Err("-o ssl_keyformat: give 1 (PEM) or 2 (DER)".to_owned()),
    };
    note(draft, "ssl_keyformat").settings.key_format = format;
    Ok(())
}

pub(super) fn ca_cert(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    note(draft, "ssl_ca_cert").settings.ca_cert = Some(file("ssl_ca_cert", value)?);
    Ok(())
}

/// "Once" is about renegotiation, which there is none of: as "required".
pub(super) fn verify_mode(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let (clients, shown) = match number("ssl_verify_mode", value, 3)? {
        0 => (ClientCertificates::Ignored, 0),
        1 => (ClientCertificates::Optional, 1),
        2 => (ClientCertificates::Required, 3),
        _ => (ClientCertificates::Required, 7),
    };
    let settings = &mut note(draft, "ssl_verify_mode").settings;
    (settings.clients, settings.verify_mode) = (clients, shown);
    Ok(())
}

pub(super) fn ciphers(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let list = value.unwrap_or_default();
    let tls = note(draft, "ssl_ciphers");
    tls.settings.ciphers = Some(list.to_owned());
    match choose_ciphers(list) {
        Ok(choice) if choice.unknown.is_empty() => {}
        Ok(choice) => {
            let names = choice.unknown.join(", ");
            tls.warnings.push(format!("-o ssl_ciphers: not there, and not offered: {names}"));
        }
        // Without -Z nothing comes of it, and memcached starts.
        Err(why) => tls.refused = Some(format!("-o ssl_ciphers: {why}")),
    }
    Ok(())
}

pub(super) fn min_version(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let asked = number("ssl_min_version", value, 3)?;
    let tls = note(draft, "ssl_min_version");
    tls.settings.min_version = if asked == 3 { TlsVersion::V1_3 } else { TlsVersion::V1_2 };
    if asked < 2 {
        tls.warnings.push(format!(
            "-o ssl_min_version={asked}: TLS 1.0 and 1.1 are not offered; served from 1.2 on"
        ));
    }
    Ok(())
}

pub(super) fn session_cache(draft: &mut Draft, _: Option<&str>) -> Result<(), String> {
    note(draft, "ssl_session_cache").settings.session_cache = true;
    Ok(())
}

pub(super) fn write_buffer(draft: &mut Draft, value: Option<&str>) -> Result<(), String> {
    let kilobytes = number("ssl_wbuf_size", value, COUNT_MAX >> 10)?;
    note(draft, "ssl_wbuf_size").settings.write_buffer_bytes = u64::from(kilobytes) << 10;
    Ok(())
}

pub(super) fn kernel_tls(draft: &mut Draft, _: Option<&str>) -> Result<(), String> {
    note(draft, "ssl_kernel_tls").settings.kernel_tls = true;
    Ok(())
}
