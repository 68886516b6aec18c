//! The tool `distcache`. Goal: `top` shows what servers do and which are down, in words that
//! scripts can take apart, a login comes from where nobody sees it, and rings have names. Method: the
//! binary, run against servers of this process.

#![cfg(all(feature = "server", feature = "cli"))]

use distcache::server::Server;
use distcache::server::config::Config;
use std::collections::BTreeMap;
use std::process::{Command, Output};

fn tool(arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_distcache"));
    command.args(arguments).env_remove("DISTCACHE_SERVERS").env_remove("DISTCACHE_PASSWORD");
    command.envs(environment.iter().copied()).output().unwrap()
}

fn said(output: &Output) -> String {
    let bytes = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn top_once_prints_a_table() {
    let servers: Vec<Server> = (0..2).map(|_| Server::bind("127.0.0.1:0").unwrap()).collect();
    // Nobody listens on the port of one that has gone.
    let gone = Server::bind("127.0.0.1:0").unwrap();
    let dead = gone.addresses()[0].to_string();
    gone.stop();
    let mut names: Vec<String> =
        servers.iter().map(|server| server.addresses()[0].to_string()).collect();
    names.push(dead.clone());
    let list = names.join(",");
    assert!(tool(&["-s", &names[0], "set", "k", "value"], &[]).status.success());
    // Without a terminal `--once` is what happens anyway.
    for arguments in [&["top", "0.1", "--once"][..], &["top", "0.1"]] {
        let output = tool(&[&["-s", &list], arguments].concat(), &[]);
        assert_eq!(output.status.code(), Some(1), "one server is down");
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
    ] {
        let environment: Vec<_> =
            password.iter().map(|password| ("DISTCACHE_PASSWORD", *password)).collect();
        let (done, text) = set(options, &environment);
        assert!(!done && text.contains(expected), "{options:?}: {text}");
        assert!(!text.contains("sec ret") && !text.contains("wrong\""), "{text}");
    }
    for path in [users, right] {
        std::fs::remove_file(path).unwrap();
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
