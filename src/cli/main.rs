//! The command-line tool `distcache`. Carries out commands and prints; the client does the work.

mod clock;
mod commands;
mod exit;
mod help;
mod keys;
mod options;
mod ring;
mod shell;
mod top;

use distcache::client::Client;
use exit::{Failure, Status};
use options::Options;
use std::cell::OnceCell;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let status = run().unwrap_or_else(|failure| failure.report());
    ExitCode::from(status.code())
}

fn run() -> Result<Status, Failure> {
    let Some(options) = options::parse(lexopt::Parser::from_env())? else {
        return Ok(Status::Done);
    };
    let words: Vec<&str> = options.command.iter().map(String::as_str).collect();
    if words.is_empty() {
        return Err("say what to do; distcache help lists the commands".into());
    }
    Session::new(&options)?.carry_out(&words)
}

/// Options, and the client that they make as soon as a command needs it.
struct Session<'o> {
    options: &'o Options,
    servers: Vec<&'o str>,
    client: OnceCell<Client>,
}

impl<'o> Session<'o> {
    fn new(options: &'o Options) -> Result<Self, Failure> {
        let servers = options.servers.split(',').map(str::trim).filter(|name| !name.is_empty());
        let servers: Vec<&str> = servers.collect();
        if servers.is_empty() {
            return Err("--servers and DISTCACHE_SERVERS name no server".into());
        }
        Ok(Self { options, servers, client: OnceCell::new() })
    }

    fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = Client::with_config(&self.servers, self.options.config.clone())?;
        Ok(self.client.get_or_init(|| client))
    }

    /// One command; its words are the command's own, options are not among them.
    fn carry_out(&self, words: &[&str]) -> Result<Status, Failure> {
        let config = &self.options.config;
        let mut out = std::io::stdout().lock();
        let status = match words {
            ["help", rest @ ..] => help(rest, &mut out),
            [name, "-h" | "--help"] => help(&[name], &mut out),
            ["ring", rest @ ..] => ring::balance(&self.servers, &config.ring, rest, &mut out),
            ["keys"] => keys::list(&self.servers, config, "*", &mut out),
            ["keys", pattern] => keys::list(&self.servers, config, pattern, &mut out),
            ["top", rest @ ..] if rest.len() < 2 => {
                drop(out);
                let told = top::Options::new(rest.first().copied(), self.options.once)?;
                return top::run(&self.servers, config, &told);
            }
            ["shell"] => {
                drop(out);
                return shell::run(self);
            }
            [name, ..] if help::find(name).is_none() => Err(commands::not_understood(words)),
            _ => commands::run(self.client()?, words, &mut out),
        }?;
        out.flush()?;
        Ok(status)
    }
}

/// Everything, or all about one command.
fn help(about: &[&str], out: &mut impl Write) -> Result<Status, Failure> {
    let text = match about {
        [] => help::overview(),
        [name] => match help::find(name) {
            Some(command) => help::of(command),
            None => return Err(commands::not_understood(about)),
        },
        _ => return Err(commands::not_understood(&["help"])),
    };
    out.write_all(text.as_bytes())?;
    Ok(Status::Done)
}
