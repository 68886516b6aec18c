//! `-l`: where to listen.
//!
//! Owns the grammar of the list and turns it into addresses, asking the name service it is given
//! for names. Never opens a socket.
//!
//! ```text
//! list  = entry *( ("," | ";") entry )
//! entry = [tls] ["proto[" name "]:"] [("tag[" name "]:") | ("tag_" name "_:")] where
//! tls   = "notls:" | "btls:" | "mtls:"
//! where = host | host ":" port | ip6 | "[" ip6 "]" | "[" ip6 "]:" port
//! ```
//!
//! A host may be `*`, which means all interfaces. Two colons or more without brackets make an IPv6
//! address without a port.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Exit, Listener, Surroundings, refuse_not_offered};
use crate::server::config::{ClientCertificates, Protocol};

/// The longest tag memcached takes, in bytes.
const TAG_BYTES_MAX: usize = 8;

/// What one listener may be said to speak.
const PROTOCOLS: [(&str, Protocol); 3] =
    [("ascii", Protocol::Text), ("binary", Protocol::Binary), ("negotiating", Protocol::Either)];

/// One entry without its prefixes.
#[derive(Debug, PartialEq, Eq)]
struct Place<'a> {
    /// `None`: all interfaces.
    host: Option<&'a str>,
    /// `None`: as `-p` says.
    port: Option<u16>,
}

/// What the prefixes for TLS ask of clients; the last one is no TLS.
const TLS_PREFIXES: [(&str, Option<ClientCertificates>); 3] = [
    ("btls:", Some(ClientCertificates::Ignored)),
    ("mtls:", Some(ClientCertificates::Required)),
    ("notls:", None),
];

/// Every address of `list`, each once, in order; all interfaces without a list. `port` is the one
/// of `-p`, 0 for any free one. `clients` is what TLS asks of clients, `None` without TLS.
pub(super) fn listeners(
    list: Option<&str>,
    port: u16,
    clients: Option<ClientCertificates>,
    around: &Surroundings<'_>,
) -> Result<Vec<(Listener, Option<Protocol>)>, Exit> {
    let listener = |address, clients: Option<ClientCertificates>| match clients {
        Some(clients) => Listener::Tls(address, clients),
        None => Listener::Tcp(address),
    };
    let Some(list) = list else {
        let all = all_interfaces(port, around).into_iter();
        return Ok(all.map(|address| (listener(address, clients), None)).collect());
    };
    let mut listeners = Vec::new();
    for entry in list.split([',', ';']).filter(|entry| !entry.is_empty()) {
        let (clients, rest) = strip_tls_prefix(entry.trim(), clients)?;
        let (protocol, rest) = strip_prefixes(rest)?;
        let place = place_of(rest).map_err(|why| {
            Exit::usage(format!(
                "-l: \"{entry}\": {why}; give an address as ip, ip:port, [ip6] or [ip6]:port"
            ))
        })?;
        for address in resolve(&place, port, around).map_err(|why| cannot_listen(list, &why))? {
            let listener = listener(address, clients);
            if !listeners.iter().any(|(known, _)| *known == listener) {
                listeners.push((listener, protocol));
            }
        }
    }
    if listeners.is_empty() {
        return Err(Exit::usage(format!("-l \"{list}\" names no address; leave it out for all")));
    }
    Ok(listeners)
}

/// Takes off what an entry says about TLS, and answers what is asked of clients there. Without
/// `-Z` there is nothing to take away, so that `notls:` does no harm; the others would be ignored.
fn strip_tls_prefix(
    entry: &str,
    clients: Option<ClientCertificates>,
) -> Result<(Option<ClientCertificates>, &str), Exit> {
    let found = TLS_PREFIXES
        .iter()
        .find_map(|(prefix, asked)| entry.strip_prefix(prefix).map(|rest| (*prefix, *asked, rest)));
    match found {
        None => Ok((clients, entry)),
        Some((prefix, Some(_), _)) if clients.is_none() => {
            Err(Exit::usage(format!("-l: \"{entry}\": {prefix} needs TLS: -Z")))
        }
        Some((_, asked, rest)) => Ok((asked, rest)),
    }
}

/// memcached finds out when it binds, so it is the same message and exit code as then.
fn cannot_listen(list: &str, why: &str) -> Exit {
    Exit::os(format!("failed to listen on one of interface(s) {list}: {why}"))
}

fn all_interfaces(port: u16, around: &Surroundings<'_>) -> Vec<SocketAddr> {
    let mut addresses = vec![SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))];
    if around.ipv6 {
        addresses.push(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
    }
    addresses
}

/// Takes off what comes before the address: the protocol, and a tag, which is of no consequence
/// here.
fn strip_prefixes(entry: &str) -> Result<(Option<Protocol>, &str), Exit> {
    let (mut rest, mut protocol) = (entry, None);
    if let Some(after) = rest.strip_prefix("proto[") {
        let (name, after) = after
            .split_once("]:")
            .ok_or_else(|| Exit::usage(format!("-l: \"{entry}\": proto[ needs ]: at its end")))?;
        refuse_not_offered(&format!("-l proto[{name}]"))?;
        let Some((_, known)) = PROTOCOLS.iter().find(|(known, _)| *known == name) else {
            let known = PROTOCOLS.map(|(name, _)| name).join(" or ");
            return Err(Exit::usage(format!("-l: \"{entry}\": proto has to be {known}")));
        };
        (rest, protocol) = (after, Some(*known));
    }
    for (open, close) in [("tag[", "]:"), ("tag_", "_:")] {
        let Some((name, after)) = rest.strip_prefix(open).and_then(|tag| tag.split_once(close))
        else {
            continue;
        };
        if !(1..=TAG_BYTES_MAX).contains(&name.len()) {
            return Err(Exit::usage(format!(
                "-l: \"{entry}\": a tag has 1 to {TAG_BYTES_MAX} characters"
            )));
        }
        return Ok((protocol, after));
    }
    Ok((protocol, rest))
}

fn place_of(text: &str) -> Result<Place<'_>, String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed.split_once(']').ok_or("] is missing")?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(format!("what is \"{after}\" after the bracket")),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (text, None),
        },
    };
    if host.is_empty() {
        return Err("the address is missing".to_owned());
    }
    let port = port.map(port_of).transpose()?;
    Ok(Place { host: Some(host).filter(|&host| host != "*"), port })
}

/// The one address that `text` names with a port: the first, where a name has several. `None`:
/// there is no port.
pub(super) fn one_address(
    text: &str,
    around: &Surroundings<'_>,
) -> Result<Option<SocketAddr>, String> {
    let place = place_of(text)?;
    let Some(port) = place.port else { return Ok(None) };
    Ok(resolve(&place, port, around)?.into_iter().next())
}

/// Port 0 is any free one, and so is -1, as with `-p`.
fn port_of(text: &str) -> Result<u16, String> {
    match text {
        "-1" => Ok(0),
        _ => text.parse().map_err(|_| format!("\"{text}\" is not a port")),
    }
}

fn resolve(
    place: &Place<'_>,
    port: u16,
    around: &Surroundings<'_>,
) -> Result<Vec<SocketAddr>, String> {
    let port = place.port.unwrap_or(port);
    let Some(host) = place.host else {
        return Ok(all_interfaces(port, around));
    };
    let found = (around.resolve)(host, port).map_err(|why| format!("{host}: {why}"))?;
    if found.is_empty() {
        return Err(format!("{host}: no address found"));
    }
    // "localhost" has an IPv6 address in many a container that has no IPv6.
    let usable = |address: &SocketAddr| around.ipv6 || address.is_ipv4();
    if found.iter().any(SocketAddr::is_ipv4) {
        return Ok(found.into_iter().filter(usable).collect());
    }
    Ok(found)
}
