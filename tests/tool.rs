//! The tool `distcache`. Goal: it prints what servers have, says what failed in words and by its
//! exit status, `top` ends with its terminal, a login comes from where nobody sees it, rings have
//! names, and manual and completions know all of it. Method: the binary, run against servers of
//! this process.

#![cfg(all(feature = "server", feature = "cli"))]

mod support;

use distcache::server::Server;
use distcache::server::config::Config;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::process::{Command, Output, Stdio};

fn tool(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
    command.args(arguments).env_remove("DISTCACHE_SERVERS").env_remove("DISTCACHE_PASSWORD");
    command.envs(environment.iter().copied()).output().unwrap()
}

/// The same, with something on standard input.
fn fed(arguments: &[&str], input: &[u8]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.env("DISTCACHE_HISTORY", "").spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    child.wait_with_output().unwrap()
}

/// A server, and an address at which there is none.
fn up_and_dead() -> (Server, String, String) {
    let up = Server::bind("127.0.0.1:0").unwrap();
    let gone = Server::bind("127.0.0.1:0").unwrap();
    let addresses = [&up, &gone].map(|server| server.addresses()[0].to_string());
    gone.stop();
    let [at, dead] = addresses;
    (up, at, dead)
}

fn said(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn top_once_prints_a_table() {
    let (_up, at, dead) = up_and_dead();
    let other = Server::bind("127.0.0.1:0").unwrap();
    let names = [at, other.addresses()[0].to_string(), dead.clone()];
    let list = names.join(",");
    assert!(tool(&["-s", &names[0], "set", "k", "value"], &[]).status.success());
    // Without a terminal `--once` is what happens anyway.
    for arguments in [&["top", "0.1", "--once"][..], &["top", "0.1"]] {
        let output = tool(&[&["-s", &list], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(69), "one server is down");
        let text = said(&output);
        let mut lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let head = lines.next().unwrap();
        let rows: Vec<BTreeMap<&str, &str>> =
            lines.take(3).map(|line| head.iter().copied().zip(line).collect()).collect();
        assert_eq!(rows.iter().map(|row| row["server"]).collect::<Vec<_>>(), names, "{text}");
        assert_eq!((rows[0]["state"], rows[0]["items"], rows[1]["items"]), ("up", "1", "0"));
        assert_eq!((rows[0]["sets_per_second"], rows[0]["bytes_max"]), ("0.0", "67108864"));
        assert_eq!((rows[2]["state"], rows[2]["items"]), ("down", "-"));
        assert!(text.contains(&format!("{dead} down: ")), "{text}");
    }
    let output = tool(&["-s", &names[0], "top", "0.1"], &[]);
    assert_eq!(output.status.code(), Some(0));
    for wrong in [&["top", "x"][..], &["top", "0"], &["top", "1", "2"]] {
        assert_eq!(tool(wrong, &[]).status.code(), Some(64), "{wrong:?}");
    }
}

#[test]
fn a_login_comes_from_the_environment_or_a_file() {
    let file = |name: &str, text: &str| {
        let name = format!("distcache-tool-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let users = file("users", "bob:sec ret\n");
    let right = file("right", "sec ret\n");
    let config = Config { auth_file: Some(users.clone()), ..Config::default() };
    let server = Server::start(config).unwrap();
    let address = server.addresses()[0].to_string();
    let set = |options: &[&str], environment: &[(&str, &str)]| {
        let words = [&["-s", &address][..], options, &["set", "a", "b"]].concat();
        let output = tool(&words, environment);
        (output.status.success(), said(&output))
    };
    let path = right.to_string_lossy().into_owned();
    assert!(set(&["-u", "bob"], &[("DISTCACHE_PASSWORD", "sec ret")]).0);
    assert!(set(&["--user", "bob", "--password-file", &path], &[]).0);
    for (options, password, expected) in [
        (&["-u", "bob"][..], Some("wrong"), "authentication failure"),
        (&[], Some("sec ret"), "the right login"),
        (&["-u", "bob"], None, "--user wants a password"),
        (&["--password-file", &path], None, "wants --user"),
        (&["-u", "bob", "--password-file", "/nonexistent"], None, "/nonexistent"),
        (&["-u", "bob", "--password", "sec ret"], None, "--password"),
        (&["--sasl"], Some("sec ret"), "--sasl wants --user"),
        (&["--sasl", "-u", "bob"], Some("sec ret"), "closed the connection"),
    ] {
        let environment: Vec<_> =
            password.iter().map(|password| ("DISTCACHE_PASSWORD", *password)).collect();
        let (done, text) = set(options, &environment);
        assert!(!done && text.contains(expected), "{options:?}: {text}");
        assert!(!text.contains("sec ret") && !text.contains("wrong\""), "{text}");
    }
    let config = Config { auth_file: Some(users.clone()), sasl: true, ..Config::default() };
    let server = Server::start(config).unwrap();
    let address = server.addresses()[0].to_string();
    let login = ["-s", &address, "--sasl", "-u", "bob", "--password-file", &path];
    for (words, code, expected) in [
        (&["set", "a", "b"][..], 0, ""),
        (&["gets", "a"], 0, " b\n"),
        (&["incr", "n", "5"], 0, "5\n"),
        (&["version"], 0, " 1.6."),
        (&["stats"], 0, "curr_items 2"),
        (&["top", "--once"], 0, "up"),
        (&["inspect", "a"], 64, "binary protocol"),
        (&["keys"], 64, "binary protocol"),
        (&["ping"], 0, "ms"),
    ] {
        let output = tool(&[&login[..], words].concat(), &[]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {text}");
    }
    for path in [users, right] {
        std::fs::remove_file(path).unwrap();
    }
}

#[test]
fn regression_a_dead_server_costs_its_own_keys_only() {
    let (_up, at, dead) = up_and_dead();
    let list = format!("{at},{dead}");
    let keys: Vec<String> = ('a'..='p').map(String::from).collect();
    let owners = said(&tool(&["-s", &list, "owner"], &[]));
    assert!(owners.contains("usage: owner KEY..."), "{owners}");
    let words: Vec<&str> = keys.iter().map(String::as_str).collect();
    let owners = said(&tool(&[&["-s", &list, "owner"][..], &words].concat(), &[]));
    let owned: Vec<&str> =
        owners.lines().filter_map(|line| line.strip_suffix(&format!(" {at}"))).collect();
    let lost: Vec<&str> =
        owners.lines().filter_map(|line| line.strip_suffix(&format!(" {dead}"))).collect();
    assert!(!owned.is_empty() && !lost.is_empty() && owned.len() + lost.len() == words.len());
    for key in &owned {
        assert!(tool(&["-s", &at, "set", key, &format!("v{key}")], &[]).status.success());
    }
    for command in ["get", "gets", "inspect", "delete"] {
        let output = tool(&[&["-s", &list, command][..], &words].concat(), &[]);
        assert_eq!(output.status.code(), Some(69), "{command}: {}", said(&output));
        let printed = String::from_utf8(output.stdout).unwrap();
        let complaints = String::from_utf8(output.stderr).unwrap();
        let named: Vec<&str> =
            complaints.lines().map(|line| line.split(": ").next().unwrap()).collect();
        assert_eq!(named, lost, "{command}: {complaints}");
        let expected: Vec<String> = owned.iter().map(|key| format!("v{key}")).collect();
        match command {
            "get" => assert_eq!(printed.lines().collect::<Vec<_>>(), expected),
            "delete" => assert_eq!(printed, ""),
            _ => assert_eq!(printed.lines().count(), owned.len(), "{command}: {printed}"),
        }
    }
    assert_eq!(tool(&["-s", &at, "get", owned[0]], &[]).status.code(), Some(1), "it was deleted");
}

#[test]
fn each_kind_of_failure_has_a_status() {
    let (_up, at, dead) = up_and_dead();
    let long = "k".repeat(251);
    let large = "v".repeat(2 << 20);
    let at = at.as_str();
    assert!(tool(&["-s", at, "set", "text", "abc"], &[]).status.success());
    for (arguments, input, code) in [
        (&["-s", at, "get", "text"][..], "", 0),
        (&["-s", at, "get", "text", "none"], "", 1),
        (&["-s", at, "delete", "none"], "", 1),
        (&["-s", at, "get", "none", &long], "", 64),
        (&["-s", at, "touch", "text", "x"], "", 64),
        (&["-s", at, "incr", "text", "-1"], "", 64),
        (&["-s", at, "shout", "text"], "", 64),
        (&["-s", at, "set", "text"], "", 64),
        (&["-s", "a:b", "get", "text"], "", 64),
        (&["-s", ",", "get", "text"], "", 64),
        (&["--verbose"], "", 64),
        (&[], "", 64),
        (&["-s", &dead, "get", "text"], "", 69),
        (&["-s", &dead, "set", "text", "x"], "", 69),
        (&["-s", &dead, "ping"], "", 69),
        (&["-s", &dead, "keys"], "", 69),
        (&["-s", at, "incr", "text"], "", 76),
        (&["-s", at, "set", "text", "-"], &large, 76),
        (&["-s", at, "stats", "nothing"], "", 76),
    ] {
        let output = fed(arguments, input.as_bytes());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", said(&output));
        assert!(code == 0 || !said(&output).is_empty(), "{arguments:?}: it says why");
    }
    let hint = said(&tool(&["-s", at, "set", "n", "-5"], &[]));
    assert!(hint.contains("write -- before"), "{hint}");
    assert!(tool(&["-s", at, "set", "--", "n", "-5"], &[]).status.success());
}

#[test]
fn commands_as_a_conversation() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let at = server.addresses()[0].to_string();
    let token = |key: &str| {
        let text = said(&tool(&["-s", &at, "gets", key], &[]));
        text.split(' ').next().unwrap().to_owned()
    };
    let check = |words: &[&str], code: i32, expected: &str| {
        let output = tool(&[&["-s", &at], words].concat(), &[]);
        let text = said(&output);
        assert_eq!((output.status.code(), text.as_str()), (Some(code), expected), "{words:?}");
    };
    check(&["replace", "a", "x"], 1, "a: not found\n");
    check(&["append", "a", "x"], 1, "a: not found\n");
    check(&["add", "a", "x", "100"], 0, "");
    check(&["add", "a", "y"], 1, "a: exists already\n");
    check(&["append", "a", "z"], 0, "");
    check(&["prepend", "a", "w"], 0, "");
    check(&["get", "a"], 0, "wxz\n");
    check(&["replace", "a", "b c"], 0, "");
    let old = token("a");
    check(&["cas", "a", &old, "new"], 0, "");
    check(&["cas", "a", &old, "newer"], 1, "a: was changed meanwhile\n");
    check(&["cas", "none", &old, "newer"], 1, "none: not found\n");
    check(&["get", "a"], 0, "new\n");
    check(&["touch", "a", "100"], 0, "");
    check(&["touch", "none", "100"], 1, "none: not found\n");
    check(&["touch", "a", "0"], 0, "");
    check(&["get", "a"], 1, "a: not found\n");
    check(&["incr", "n", "5"], 0, "5\n");
    check(&["decr", "n", "9"], 0, "0\n");
    // Bytes as they are, from standard input and back.
    for value in [&b"\xff\x00\r\n"[..], b"text\n", b""] {
        assert!(fed(&["-s", &at, "set", "raw", "-"], value).status.success());
        assert_eq!(tool(&["-s", &at, "get", "raw"], &[]).stdout, [value, b"\n"].concat());
    }
}

#[test]
fn keys_that_match() {
    let servers: Vec<Server> = (0..2).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    let list: Vec<String> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    let list = list.join(",");
    let names = ["user:1", "user:2", "user:10", "shop:1", "shop:x%y"];
    for name in names {
        assert!(tool(&["-s", &list, "set", name, "1"], &[]).status.success());
    }
    let keys = |words: &[&str]| -> BTreeSet<String> {
        let output = tool(&[&["-s", &list], words].concat(), &[]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        said(&output).lines().map(str::to_owned).collect()
    };
    let all: BTreeSet<String> = names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(keys(&["keys"]), all);
    for (words, expected) in [
        (&["keys", "user:?"][..], &["user:1", "user:2"][..]),
        (&["keys", "*:1"], &["shop:1", "user:1"]),
        (&["-p", "shop:", "keys"], &["1", "x%y"]),
        (&["keys", "none*"], &[]),
    ] {
        assert_eq!(keys(words).iter().map(String::as_str).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn regression_a_list_of_keys_to_a_closed_pipe_ends_quietly() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let at = server.addresses()[0].to_string();
    let client = distcache::client::Client::connect([&at]).unwrap();
    for number in 0..300 {
        client.set(format!("{number}-{}", "k".repeat(200)), 1).unwrap();
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
    command.args(["-s", &at, "keys"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(74), &b""[..]));
}

#[test]
fn a_shell_carries_out_lines() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let at = server.addresses()[0].to_string();
    for (input, code, expected) in [
        ("set a 'b c'\nget a\n", 0, "b c\n"),
        ("get none\nget a\n", 0, "none: not found"),
        ("get a\nget none\n", 1, "none: not found"),
        ("get a\nget none\nquit\nget a\n", 1, "b c\n"),
        ("set a -\n", 64, "write the value"),
        ("set n -5\nget n\n", 0, "-5\n"),
        ("\nshout\n", 64, "\"shout\" is no command"),
        ("get 'a\n", 64, "a quote is not closed"),
        ("help get\nget -h\n", 0, "distcache [OPTIONS] get KEY..."),
        ("shell\n", 64, "this is the shell"),
        ("owner a", 0, &at),
    ] {
        let output = fed(&["-s", &at, "shell"], input.as_bytes());
        let text = said(&output);
        assert_eq!(output.status.code(), Some(code), "{input}: {text}");
        assert!(text.contains(expected), "{input}: {text}");
        assert!(!input.contains("quit") || text.matches("b c\n").count() == 1, "{text}");
    }
}

/// What other programs read has no flags of ours.
#[test]
fn what_is_set_has_no_flags() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0].to_string();
    for value in ["7", "0", "340282366920938463463374607431768211456", "007", "text"] {
        assert!(tool(&["-s", &address, "set", "key", value], &[]).status.success());
        let output = said(&tool(&["-s", &address, "inspect", "key"], &[]));
        assert!(output.contains("flags 0"), "{value}: {output}");
    }
}

#[test]
fn rings_are_chosen_by_name() {
    let servers = "10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4";
    let owners = |ring| {
        let output = tool(&["-s", servers, "-r", ring, "owner", "key-0", "key-1", "key-2"], &[]);
        assert!(output.status.success(), "{}", said(&output));
        said(&output)
    };
    // As in tests/vectors/ring_python.txt.
    let lines = |owners: [u8; 3]| -> String {
        let line = |(key, owner): (usize, u8)| format!("key-{key} 10.0.0.{}:11211\n", owner + 1);
        owners.into_iter().enumerate().map(line).collect()
    };
    assert_eq!(owners("rendezvous"), lines([0, 3, 1]));
    assert_eq!(owners("jump"), lines([0, 2, 2]));
    for ring in ["weighted", "consistent:md5", "rendezvous", "jump:crc32a", "maglev"] {
        let output = tool(&["-s", servers, "-r", ring, "ring", "1000"], &[]);
        assert!(output.status.success(), "{}", said(&output));
        assert!(said(&output).contains("one more server moves"), "{}", said(&output));
    }
    let output = tool(&["-s", servers, "-r", "ketama", "ring"], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(said(&output).contains("one of weighted, "), "{}", said(&output));
}

fn packaged(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("etc").join(name);
    std::fs::read_to_string(path).expect(name)
}

#[test]
fn manual_and_completions_know_every_command_and_option() {
    let help = said(&tool(&["help"], &[]));
    let bash = packaged("completions/distcache.bash");
    let zsh = packaged("completions/_distcache");
    let fish = packaged("completions/distcache.fish");
    let manual = packaged("distcache.1");
    let has_word = |text: &str, name: &str| text.split_whitespace().any(|word| word == name);
    let (commands, options) = help.split_once("\nOptions:").unwrap();
    let commands = commands.split_once("Commands:\n").unwrap().1;
    let commands: Vec<&str> =
        commands.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.len() > 20, "{help}");
    for name in commands {
        assert!(manual.contains(&format!(".TP\n\\fB{name}\\fR")), "{name} in the manual");
        assert!(has_word(&bash, name), "{name} for bash");
        assert!(zsh.contains(&format!("'{name}:")), "{name} for zsh");
        assert!(fish.contains(&format!("__fish_use_subcommand -a {name} -d")), "{name} for fish");
        for asked in [&["help", name][..], &[name, "-h"], &[name, "--help"]] {
            let output = tool(asked, &[]);
            let text = said(&output);
            assert!(output.status.success(), "{asked:?}: {text}");
            assert!(text.starts_with(&format!("distcache [OPTIONS] {name}")), "{text}");
        }
    }
    let (options, statuses) = options.split_once("\nExit status:").unwrap();
    let words = options.split(|letter: char| letter.is_whitespace() || letter == ',');
    let names: BTreeSet<&str> =
        words.filter(|word| word.len() > 1 && word.starts_with('-') && *word != "-5").collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let in_manual = format!("\\fB{}\\fR", name.replace('-', "\\-"));
        assert!(manual.contains(&in_manual), "{name} in the manual");
        if name == "--" {
            continue;
        }
        assert!(has_word(&bash, name), "{name} for bash");
        let starts = |end: &str| zsh.contains(&format!("'{name}{end}"));
        assert!(["[", "=[", "+["].iter().any(|end| starts(end)), "{name} for zsh");
        let in_fish = match name.strip_prefix("--") {
            Some(long) => format!(" -l {long} "),
            None => format!(" -s {} ", &name[1..]),
        };
        assert!(fish.contains(&in_fish), "{name} for fish");
    }
    for status in statuses.lines().filter_map(|line| line.split_whitespace().next()) {
        assert!(manual.contains(&format!("\n.B {status}\n")), "status {status} in the manual");
    }
}

/// `top` on a terminal of its own.
#[cfg(target_os = "linux")]
mod terminal {
    use super::support::PATIENCE;
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, Signal, kill_process};
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    use rustix::termios::{Winsize, tcsetwinsize};
    use std::fs::File;
    use std::io::Read;
    use std::process::{Child, ExitStatus};
    use std::time::{Duration, Instant};

    /// The end that a terminal emulator holds, and the program at the other.
    fn top(arguments: &[&str]) -> (File, Child) {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let path = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
        command.args(arguments).stdin(open()).stdout(open()).stderr(open());
        (master.into(), command.spawn().unwrap())
    }

    /// Reads what is drawn until it contains some texts.
    fn await_texts(master: &mut File, wanted: &[&str]) {
        let (mut seen, mut room) = (String::new(), [0; 4096]);
        let patience = Timespec::try_from(PATIENCE).unwrap();
        while !wanted.iter().all(|text| seen.contains(text)) {
            let mut readable = [PollFd::new(master, PollFlags::IN)];
            assert_eq!(poll(&mut readable, Some(&patience)), Ok(1), "no more: {seen}");
            let count = master.read(&mut room).unwrap_or(0);
            assert!(count > 0, "it ended: {seen}");
            seen += &String::from_utf8_lossy(&room[..count]);
        }
    }

    fn ended(mut child: Child, what: &str) -> ExitStatus {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
        panic!("{what}: it goes on");
    }

    #[test]
    fn regression_top_ends_with_its_terminal_and_by_signals() {
        let (_up, at, dead) = up_and_dead();
        let list = format!("{at},{dead}");
        for what in ["q", "the terminal goes", "SIGTERM", "SIGTERM, then the terminal goes"] {
            let (mut master, child) = top(&["-s", &list, "top"]);
            await_texts(&mut master, &[&at, "connect:"]);
            if what == "q" {
                master.write_all(b"q").unwrap();
            }
            if what.starts_with("SIGTERM") {
                kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
            }
            let kept = (!what.ends_with("goes")).then_some(master);
            let status = ended(child, what);
            assert!(status.success(), "{what}: {status}");
            drop(kept);
        }
    }
}
