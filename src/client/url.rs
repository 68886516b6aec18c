//! A client's servers and the most common settings in one line, for environment variables and
//! configuration files. Owns the notation; no I/O.

use crate::client::cluster::start::parse_nodes;
use crate::client::config::{Config, Expiry, WhenDown};
use crate::client::error::Error;
use crate::client::placement::node::Node;
use crate::client::wire::login::Login;
use std::time::Duration;

/// How long items live in a place where they do not belong, if `when_down` says `next`.
const STAND_IN_SECONDS_MAX: u32 = 60;

fn wrong(what: impl std::fmt::Display) -> Error {
    Error::Config(format!("URL of the servers: {what}"))
}

/// Servers and settings of `memcache://user:password@server,server?name=value&...`; encrypted with
/// `memcaches`, logged in by SASL with `+sasl`. What is wrong is named without the password.
pub(in crate::client) fn parse(url: &str) -> Result<(Vec<Node>, Config), Error> {
    let (scheme, rest) =
        url.split_once("://").ok_or_else(|| wrong("write memcache://host:port"))?;
    let mut config = Config::default();
    let (kind, is_sasl) = match scheme.strip_suffix("+sasl") {
        Some(kind) => (kind, true),
        None => (scheme, false),
    };
    match kind {
        "memcache" => {}
        "memcaches" => encrypt(&mut config)?,
        _ => return Err(wrong(format!("{scheme:?} is not memcache or memcaches, nor with +sasl"))),
    }
    let (servers, settings) = rest.split_once('?').unwrap_or((rest, ""));
    let is_login = servers.contains('@');
    // Such a setting is the rest of a password, and would be named.
    let is_name = |setting: &str| setting.split('=').next().is_some_and(|name| name.contains('@'));
    if settings.contains('@') && (!is_login || settings.split('&').any(is_name)) {
        return Err(wrong("a ? in user or password is written %3F, an @ in a setting %40"));
    }
    let servers = match servers.rsplit_once('@') {
        Some((login, servers)) => {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let (user, password) = (decoded(user)?, decoded(password)?);
            config.login = Some(match is_sasl {
                true => Login::sasl(user, password),
                false => Login::new(user, password),
            });
            servers
        }
        None if is_sasl => return Err(wrong("+sasl wants user:password@ before the servers")),
        None => servers,
    };
    for setting in settings.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        set(&mut config, name, &decoded(value)?)?;
    }
    Ok((parse_nodes([servers])?, config))
}

#[cfg(feature = "tls")]
fn encrypt(config: &mut Config) -> Result<(), Error> {
    config.tls = Some(crate::client::net::tls::Tls::default());
    Ok(())
}

#[cfg(not(feature = "tls"))]
fn encrypt(_config: &mut Config) -> Result<(), Error> {
    Err(wrong("memcaches needs the feature tls"))
}

fn set(config: &mut Config, name: &str, value: &str) -> Result<(), Error> {
    let number = || -> Result<u32, Error> {
        value.parse().map_err(|_| wrong(format!("{name}={value}: not a number")))
    };
    let millis = || Ok(Duration::from_millis(number()?.into()));
    match name {
        "ring" => config.ring = value.parse()?,
        "prefix" => config.key_prefix = value.to_owned(),
        "expiry_s" => config.expiry = Expiry::In(Duration::from_secs(number()?.into())),
        "replicas" => config.replicas = number()? as usize,
        "zone" => config.zone = Some(value.to_owned()),
        "timeout_ms" => config.call_timeout = millis()?,
        "connect_timeout_ms" => config.connect_timeout = millis()?,
        "when_down" => {
            config.when_down = match value {
                "error" => WhenDown::Error,
                "miss" => WhenDown::Miss,
                "next" => WhenDown::NextServer { expiry_seconds_max: STAND_IN_SECONDS_MAX },
                _ => return Err(wrong(format!("when_down={value}: not error, miss or next"))),
            }
        }
        _ => {
            let known = "ring, prefix, expiry_s, replicas, zone, timeout_ms, connect_timeout_ms, \
                         when_down";
            return Err(wrong(format!("{name:?} is no setting: one of {known}")));
        }
    }
    Ok(())
}

/// With each `%` and two digits as the byte that they stand for.
fn decoded(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(wrong("a % without two hexadecimal digits"));
        };
        // Two digits fit.
        bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
    }
    String::from_utf8(bytes).map_err(|_| wrong("%-digits that are no UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::placement::ring::RingKind;

    #[test]
    fn servers_and_settings_of_a_url() {
        let url = "memcache://bob:a%40b%3Fc@10.0.0.1,10.0.0.2:11212:3?ring=spymemcached&prefix=p%3a\
                   &timeout_ms=250&connect_timeout_ms=50&expiry_s=60&when_down=next";
        let (nodes, config) = parse(url).unwrap();
        assert_eq!(nodes, ["10.0.0.1", "10.0.0.2:11212:3"].map(|node| node.parse().unwrap()));
        assert!(matches!(config.ring, RingKind::Spymemcached));
        assert_eq!(config.login, Some(Login::new("bob", "a@b?c")));
        assert_eq!((config.key_prefix.as_str(), config.call_timeout.as_millis()), ("p:", 250));
        assert_eq!(config.connect_timeout, Duration::from_millis(50));
        assert_eq!(config.expiry, Expiry::In(Duration::from_secs(60)));
        assert_eq!(config.when_down, WhenDown::NextServer { expiry_seconds_max: 60 });
        let (nodes, config) = parse("memcache:///run/cache.sock").unwrap();
        assert_eq!(nodes, [Node::unix("/run/cache.sock")]);
        assert_eq!(config.login, None);
        assert_eq!(parse("memcaches://a").is_ok(), cfg!(feature = "tls"));
        let (_, config) = parse("memcache+sasl://bob:secret@a").unwrap();
        assert_eq!(config.login, Some(Login::sasl("bob", "secret")));
        assert_eq!(parse("memcaches+sasl://bob:secret@a").is_ok(), cfg!(feature = "tls"));
    }

    #[test]
    fn what_is_wrong_is_named_and_no_password() {
        for (url, named) in [
            ("10.0.0.1", "memcache://"),
            ("redis://a", "redis"),
            ("memcache+tls://a", "memcache+tls"),
            ("memcache+sasl://a", "user:password@"),
            ("memcache://a?ring=round", "round"),
            ("memcache://a?timeout_ms=soon", "soon"),
            ("memcache://a?colour=red", "colour"),
            ("memcache://a?when_down=panic", "panic"),
            ("memcache://a?prefix=%4", "hexadecimal"),
            ("memcache://a?prefix=%ff", "UTF-8"),
            ("memcache://a:99999", "65535"),
            ("memcache://bob:secret@a?b=c", "\"b\""),
            ("memcache://bob:pa?secret@a", "%3F"),
            ("memcache://bob:pa?ring=secret@a", "%3F"),
            ("memcache://bob:p@a?secret@a", "%3F"),
            ("memcache+sasl://bob:pa?secret@a", "%3F"),
            ("memcache://a?prefix=a@b", "%40"),
        ] {
            let error = parse(url).unwrap_err().to_string();
            assert!(error.contains(named) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
