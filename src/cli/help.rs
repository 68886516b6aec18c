//! What the tool can do, in words: the table of commands, and help made of it. No I/O.

use std::fmt::Write as _;

/// A command as help and the shell know it.
#[derive(Debug)]
pub(crate) struct Command {
    pub name: &'static str,
    pub arguments: &'static str,
    pub summary: &'static str,
    /// What else there is to know; lines of at most 80 columns.
    details: &'static str,
}

const fn command(
    name: &'static str,
    arguments: &'static str,
    summary: &'static str,
    details: &'static str,
) -> Command {
    Command { name, arguments, summary, details }
}

/// In the order of the overview.
pub(crate) const COMMANDS: [Command; 25] = [
    command(
        "get",
        "KEY...",
        "values, one a line",
        "Prints the bytes as they are stored and a line end after each. Keys that are missing and\n\
         keys whose server fails are named on standard error; the others are printed.",
    ),
    command("gets", "KEY...", "token and value, one a line", "The token is what cas wants."),
    command(
        "set",
        "KEY VALUE [SECONDS]",
        "store, for ever or so many seconds",
        "VALUE - is what standard input holds, byte for byte.",
    ),
    command(
        "add",
        "KEY VALUE [SECONDS]",
        "store if there is no such item",
        "VALUE - is what standard input holds. Exit status 1: there is one.",
    ),
    command(
        "replace",
        "KEY VALUE [SECONDS]",
        "store if there is such an item",
        "VALUE - is what standard input holds. Exit status 1: there is none.",
    ),
    command(
        "append",
        "KEY VALUE",
        "put behind the value",
        "VALUE - is what standard input holds. Exit status 1: there is no such item.",
    ),
    command(
        "prepend",
        "KEY VALUE",
        "put before the value",
        "VALUE - is what standard input holds. Exit status 1: there is no such item.",
    ),
    command(
        "cas",
        "KEY TOKEN VALUE [SECONDS]",
        "store if nobody has changed the item since gets",
        "TOKEN is what gets or inspect printed. Exit status 1: the item was changed, or there is\n\
         none.",
    ),
    command("delete", "KEY...", "delete items", "Exit status 1: a key was missing."),
    command(
        "incr",
        "KEY [DELTA]",
        "count up",
        "A counter that is missing starts at DELTA (1). Prints the new number.",
    ),
    command(
        "decr",
        "KEY [DELTA]",
        "count down, not below 0",
        "A counter that is missing starts at 0. Prints the new number.",
    ),
    command(
        "touch",
        "KEY SECONDS",
        "set the time to live",
        "0 is at once. Exit status 1: there is no such item.",
    ),
    command(
        "inspect",
        "KEY...",
        "size, flags, token, time to live",
        "Needs the meta commands (memcached 1.6.10 or later), which --sasl does without.",
    ),
    command(
        "keys",
        "[PATTERN]",
        "keys that match, of all servers",
        "In PATTERN * stands for any bytes, ? for one, [a-z] for one of these, [!a-z] for one\n\
         other, and \\ before one of them for itself: quote it for your shell. Keys with blanks\n\
         or control characters are printed with %20 and the like. With --prefix those that\n\
         begin with it, without it. The order is the servers' own, and keys stored meanwhile\n\
         may be missing. By the command \"lru_crawler metadump all\", which -X switches off and\n\
         --sasl does without.",
    ),
    command("owner", "KEY...", "which server owns each key", "Asks no server."),
    command(
        "ring",
        "[KEYS]",
        "balance of KEYS keys (100000)",
        "How many keys each server owns, and how many move with a server. Asks no server.",
    ),
    command(
        "ping",
        "",
        "whether each server answers, and how fast",
        "The fastest of three answers.",
    ),
    command("version", "", "the version of each server", ""),
    command(
        "stats",
        "[WHICH]",
        "general statistics, or settings, items and more",
        "distcached has latency, hotkeys and bigkeys besides memcached's.",
    ),
    command(
        "flush",
        "",
        "makes all items of all servers invalid",
        "At once, and there is no way back.",
    ),
    command(
        "top",
        "[SECONDS]",
        "what the servers do, live",
        "Every 2 seconds, or so many. Without a terminal or with --once, one sample as text.\n\
         Keys: q ends it, s sorts, arrows select a server, + and - change the interval, ? helps.",
    ),
    command(
        "shell",
        "",
        "commands from a prompt, with history",
        "One command a line, with words quoted as in a shell. Tab completes commands. The history\n\
         is in $XDG_STATE_HOME/distcache/history (else ~/.local/state; Windows: %LOCALAPPDATA%),\n\
         or in the file that DISTCACHE_HISTORY names; if that is empty, nowhere. Lines that begin\n\
         with a blank are not kept. Without a terminal, commands come from standard input. The\n\
         exit status is that of the last command.",
    ),
    command("quit", "", "the end of the shell", "Also exit, and Ctrl-D."),
    command("exit", "", "the end of the shell", "Also quit, and Ctrl-D."),
    command("help", "[COMMAND]", "this, or all about a command", "Also COMMAND -h."),
];

const OPTIONS: &str = "\
Options:
    -s, --servers LIST    host:port[:weight],... (else DISTCACHE_SERVERS, else localhost:11211)
    -r, --ring RING       weighted (libmemcached, php, pylibmc; the default), consistent[:HASH],
                          spymemcached, spymemcached-libmemcached, libmemcached-spy,
                          twemproxy[:HASH], modula[:HASH], rendezvous (pymemcache),
                          jump[:HASH], maglev[:HASH]
    -p, --prefix PREFIX   put before every key
    -u, --user NAME       log in as NAME, with the password in DISTCACHE_PASSWORD or
        --password-file FILE  in the first line of FILE; never on the command line, which others see
        --sasl            log in by SASL, and speak the binary protocol to do so
    -T, --timeout MS      longest time for a call (2000)
        --tls             encrypt, and believe whom the system believes (feature tls)
        --tls-ca FILE     believe these authorities instead (PEM)
        --tls-name NAME   the name on the servers' certificates, if not their host
        --tls-cert FILE, --tls-key FILE   our own certificate and its key (PEM)
        --once            top: one sample, as text
    -h, --help
    -V, --version
    --                    what follows are no options: distcache set -- n -5

Exit status:
    0   done
    1   a key was missing, or a condition for storing was not met
    64  the command line makes no sense
    69  a server could not be reached, or did not answer in time
    74  output could not be written
    76  a server refused, or said what is no answer
    77  a server wants a login, or another one
";

/// The command of this name.
pub(crate) fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Everything, briefly.
pub(crate) fn overview() -> String {
    let mut text = "\
distcache: asks servers that share keys, as one cache

    distcache [OPTIONS] COMMAND [ARGUMENT...]
    distcache -s 10.0.0.1,10.0.0.2:11212 get brazil

Commands:
"
    .to_owned();
    for command in &COMMANDS {
        let usage = format!("{} {}", command.name, command.arguments);
        let _ = writeln!(text, "    {usage:<29} {}", command.summary);
    }
    text + "\n" + OPTIONS
}

/// All about one command.
pub(crate) fn of(command: &Command) -> String {
    let Command { name, arguments, summary, details } = command;
    let usage = format!("distcache [OPTIONS] {name} {arguments}");
    let mut text = format!("{}\n\n{name}: {summary}\n", usage.trim_end());
    if !details.is_empty() {
        let _ = write!(text, "\n{details}\n");
    }
    text + "\ndistcache help lists options and exit statuses.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_fits_a_terminal() {
        let details = COMMANDS.iter().map(of);
        for text in std::iter::once(overview()).chain(details) {
            for line in text.lines() {
                assert!(line.len() <= 100 && line.trim_end() == line, "{line:?}");
            }
        }
        let mut names: Vec<&str> = COMMANDS.iter().map(|command| command.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COMMANDS.len());
    }
}
