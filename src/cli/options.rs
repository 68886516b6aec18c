//! The tool's options, and what they mean for the client. Never shows a password.

use crate::exit::Failure;
use distcache::client::{Config, Login};
use lexopt::{Arg, ValueExt};
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

/// What the options say.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub servers: String,
    pub config: Config,
    pub command: Vec<String>,
    /// `--once`
    pub once: bool,
}

/// `None` when all was said already.
pub(crate) fn parse(mut parser: lexopt::Parser) -> Result<Option<Options>, Failure> {
    let servers = std::env::var("DISTCACHE_SERVERS").ok().filter(|servers| !servers.is_empty());
    let servers = servers.unwrap_or_else(|| "localhost:11211".into());
    let mut options = Options { servers, ..Options::default() };
    let (mut user, mut password_file, mut is_sasl) = (None, None, false);
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
            Arg::Long("sasl") => is_sasl = true,
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
                let about = options.command.into_iter().next();
                options.command = std::iter::once("help".to_owned()).chain(about).collect();
                return Ok(Some(options));
            }
            Arg::Short('V') | Arg::Long("version") => {
                writeln!(std::io::stdout(), "distcache {}", env!("CARGO_PKG_VERSION"))?;
                return Ok(None);
            }
            Arg::Value(word) => options.command.push(word.string()?),
            _ => return Err(argument.unexpected().into()),
        }
    }
    options.config.login = login(user, password_file, is_sasl)?;
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
fn login(
    user: Option<String>,
    file: Option<PathBuf>,
    is_sasl: bool,
) -> Result<Option<Login>, Failure> {
    let Some(user) = user else {
        return match file {
            Some(_) => Err("--password-file wants --user NAME as well".into()),
            None if is_sasl => Err("--sasl wants --user NAME as well".into()),
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
    Ok(Some(match is_sasl {
        true => Login::sasl(user, password),
        false => Login::new(user, password),
    }))
}
