//! The tool's options, and what they mean for the client. Never shows a password.

use super::Failure;
use distcache::client::{Config, Login};
use lexopt::{Arg, ValueExt};
use std::path::PathBuf;
use std::time::Duration;

const USAGE: &str = "\
distcache: asks servers that share keys, as one cache

    distcache [-s SERVERS] [-r RING] [-p PREFIX] [-T MILLISECONDS] COMMAND

Commands:
    get KEY...                 values, one a line
    set KEY VALUE [SECONDS]    store, for ever or so many seconds
    delete KEY...
    incr KEY [DELTA]           also decr; a counter that is missing starts at DELTA (decr: at 0)
    touch KEY SECONDS
    inspect KEY...             size, flags, token, time to live
    owner KEY...               which server owns each key
    ring [KEYS]                balance of KEYS keys (100000) and how many move with a server
    ping                       whether each server answers, and how fast
    version
    stats [WHICH]              general statistics, or settings, items, slabs, ...
    flush                      makes all items of all servers invalid
    top [SECONDS]              what the servers do, live, every 2 or so many seconds; without a
                               terminal or with --once, one sample as text

Options:
    -s, --servers LIST    host:port[:weight],... (else DISTCACHE_SERVERS, else localhost:11211)
    -r, --ring RING       weighted (libmemcached, php, pylibmc; the default), consistent[:HASH],
                          spymemcached, spymemcached-libmemcached, libmemcached-spy,
                          twemproxy[:HASH], modula[:HASH], rendezvous (pymemcache),
                          jump[:HASH], maglev[:HASH]
    -p, --prefix PREFIX   put before every key
    -u, --user NAME       log in as NAME, with the password in DISTCACHE_PASSWORD or
        --password-file FILE  in the first line of FILE; never on the command line, which others see
    -T, --timeout MS      longest time for a call (2000)
        --tls             encrypt, and believe whom the system believes (feature tls)
        --tls-ca FILE     believe these authorities instead (PEM)
        --tls-name NAME   the name on the servers' certificates, if not their host
        --tls-cert FILE, --tls-key FILE   our own certificate and its key (PEM)
        --once            top: one sample, as text
    -h, --help
    -V, --version
";

/// What the options say.
#[derive(Debug, Default)]
pub struct Options {
    pub servers: String,
    pub config: Config,
    pub command: Vec<String>,
    /// `--once`
    pub once: bool,
}

/// `None` when all was said already.
pub fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, Failure> {
    let servers = std::env::var("DISTCACHE_SERVERS").unwrap_or_else(|_| "localhost:11211".into());
    let mut options = Options { servers, ..Options::default() };
    let (mut user, mut password_file) = (None, None);
    let mut tls = TlsOptions::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('s') | Arg::Long("servers") => options.servers = parser.value()?.string()?,
            Arg::Short('r') | Arg::Long("ring") => {
                options.config.ring = parser.value()?.string()?.parse()?;
            }
            Arg::Short('p') | Arg::Long("prefix") => {
                options.config.key_prefix = parser.value()?.string()?;
            }
            Arg::Short('u') | Arg::Long("user") => user = Some(parser.value()?.string()?),
            Arg::Long("password-file") => password_file = Some(PathBuf::from(parser.value()?)),
            Arg::Long("once") => options.once = true,
            Arg::Long("tls") => tls.on = true,
            Arg::Long("tls-ca") => tls.ca = Some(PathBuf::from(parser.value()?)),
            Arg::Long("tls-name") => tls.name = Some(parser.value()?.string()?),
            Arg::Long("tls-cert") => tls.certificate = Some(PathBuf::from(parser.value()?)),
            Arg::Long("tls-key") => tls.key = Some(PathBuf::from(parser.value()?)),
            Arg::Short('T') | Arg::Long("timeout") => {
                let timeout = Duration::from_millis(parser.value()?.parse()?);
                options.config.call_timeout = timeout;
                options.config.connect_timeout = timeout;
                options.config.read_timeout = timeout;
                options.config.write_timeout = timeout;
            }
            Arg::Short('h') | Arg::Long("help") => {
                print!("{USAGE}");
                return Ok(None);
            }
            Arg::Short('V') | Arg::Long("version") => {
                println!("distcache {}", env!("CARGO_PKG_VERSION"));
                return Ok(None);
            }
            Arg::Value(word) => options.command.push(word.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    options.config.login = login(user, password_file)?;
    if tls != TlsOptions::default() {
        tls.apply(&mut options.config)?;
    }
    Ok(Some(options))
}

/// What was said of encryption; any of it switches it on.
#[derive(Debug, Default, PartialEq)]
struct TlsOptions {
    on: bool,
    ca: Option<PathBuf>,
    name: Option<String>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

impl TlsOptions {
    #[cfg(feature = "tls")]
    fn apply(self, config: &mut Config) -> Result<(), Failure> {
        use distcache::client::{ClientCertificate, Tls};
        let certificate = match (self.certificate, self.key) {
            (Some(chain), Some(key)) => Some(ClientCertificate { chain, key }),
            (None, None) => None,
            _ => return Err("--tls-cert and --tls-key go together".into()),
        };
        config.tls = Some(Tls { roots: self.ca, server_name: self.name, certificate });
        Ok(())
    }

    #[cfg(not(feature = "tls"))]
    fn apply(self, _config: &mut Config) -> Result<(), Failure> {
        Err("this distcache was built without TLS: build it with --features tls".into())
    }
}

/// The password comes from a file or the environment: command lines are seen by all users.
fn login(user: Option<String>, file: Option<PathBuf>) -> Result<Option<Login>, Failure> {
    let Some(user) = user else {
        return match file {
            Some(_) => Err("--password-file wants --user NAME as well".into()),
            None => Ok(None),
        };
    };
    let password = match file {
        Some(path) => {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None => std::env::var("DISTCACHE_PASSWORD").map_err(
            |_| "--user wants a password: in DISTCACHE_PASSWORD, or --password-file FILE",
        )?,
    };
    Ok(Some(Login::new(user, password)))
}
