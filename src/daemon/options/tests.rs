//! The command line as tables: words in, what changes against the defaults out. Pure: no
//! environment, no name service, a machine of four cores with IPv6.

use super::super::os::{EX_OSERR, EX_USAGE, EXIT_FAILURE};
use super::*;
use crate::server::config::{ClientCertificates, KeyFormat, Protocol, TlsConfig, TlsVersion};

fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses: &[&str] = match host {
        "localhost" => &["127.0.0.1", "::1"],
        "six.example" => &["2001:db8::1", "2001:db8::2"],
        _ => match host.parse() {
            Ok(ip) => return Ok(vec![SocketAddr::new(ip, port)]),
            Err(_) => return Err(io::Error::other("Name or service not known")),
        },
    };
    let parse = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), port);
    Ok(addresses.iter().map(parse).collect())
}

fn surroundings() -> Surroundings<'static> {
    Surroundings {
        port_file: None,
        sasl_file: None,
        cores: 4,
        ipv6: true,
        absent: &[],
        resolve: &resolve,
    }
}

fn parse_words(words: &[&str], around: &Surroundings<'_>) -> Result<Action, Exit> {
    parse_in(["distcached"].iter().chain(words).map(OsString::from), around)
}

fn settings(words: &[&str]) -> Settings {
    match parse_words(words, &surroundings()) {
        Ok(Action::Run(settings)) => *settings,
        other => panic!("{words:?} should run, not {other:?}"),
    }
}

/// The words make just this change to the settings of an empty command line.
fn check(words: &[&str], change: impl FnOnce(&mut Settings)) {
    let mut expect = settings(&[]);
    change(&mut expect);
    assert_eq!(settings(words), expect, "{words:?}");
}

/// The words set just these lines of `stats settings`, and are reported as being without effect.
fn check_unused(words: &[&str], flags: &str, lines: &[(&'static str, &str)]) {
    check(words, |expect| {
        for &(line, value) in lines {
            expect.config.accepted_only.set_unused(line, value);
        }
        expect.warnings = vec![without_effect(flags)];
    });
}

fn without_effect(flags: &str) -> String {
    format!("accepted as memcached accepts them, but without effect here: {flags}")
}

fn split(words: &str) -> Vec<&str> {
    words.split_whitespace().collect()
}

/// The words are refused with this code and a message that contains this.
fn check_refused(words: &[&str], code: u8, part: &str) {
    match parse_words(words, &surroundings()) {
        Err(exit) => {
            assert_eq!(exit.code, code, "{words:?}: {exit}");
            assert!(exit.message.contains(part), "{words:?}: {exit}");
        }
        Ok(action) => panic!("{words:?} should be refused, not {action:?}"),
    }
}

fn tcp(addresses: &[&str]) -> Vec<Listener> {
    addresses.iter().map(|text| Listener::Tcp(text.parse().unwrap())).collect()
}

/// The list means these addresses.
fn check_listen(words: &[&str], addresses: &[&str]) {
    assert_eq!(settings(words).config.listeners, tcp(addresses), "{words:?}");
}

#[test]
fn no_flags_mean_memcached_s_defaults() {
    let found = settings(&[]);
    let expect = Config {
        listeners: tcp(&["0.0.0.0:11211", "[::]:11211"]),
        accepted_only: AcceptedOnly { tcp_port: 11211, ..AcceptedOnly::default() },
        ..Config::default()
    };
    assert_eq!(found.config, expect);
    assert_eq!(found.process, ProcessSettings::default());
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn each_flag_does_one_thing() {
    check(&["-A"], |s| s.config.shutdown = true);
    check(&["-d"], |s| s.process.daemonize = true);
    check(&["-r"], |s| s.process.core_dumps = true);
    check(&["-k"], |s| s.process.lock_memory = true);
    check(&["-M"], |s| s.config.evict = false);
    check(&["-C"], |s| s.config.cas = false);
    check(&["-F"], |s| s.config.flush = false);
    check(&["-X"], |s| s.config.dump = false);
    check(&["-W"], |s| s.config.watch = false);
    check(&["-v"], |s| s.config.verbosity = 1);
    check(&["-vvv"], |s| s.config.verbosity = 3);
    check(&["-u", "nobody"], |s| s.process.user = Some("nobody".to_owned()));
    check(&["-P", "/run/x.pid"], |s| s.process.pid_file = Some("/run/x.pid".into()));
    check(&["-m", "8"], |s| s.config.memory_bytes_max = 8 << 20);
    check(&["-m", "2"], |s| s.config.memory_bytes_max = 2 << 20);
    for given in ["256", "256m", "256M", "256mb", " 256MB", "256MiB"] {
        check(&["-m", given], |s| s.config.memory_bytes_max = 256 << 20);
    }
    check(&["-c", "1"], |s| s.config.connections_max = 1);
    check(&["-t", "1"], |s| s.config.workers = 1);
    check(&["-R", "500"], |s| s.config.requests_per_turn_max = 500);
    check(&["-b", "8675"], |s| s.config.backlog = 8675);
    check(&["--slow-command-us", "500"], |s| s.config.slow_command_us = 500);
    check(&["--slow-command-us=0"], |_| ());
    check(&["--log-file", "/var/log/x"], |s| s.process.log_file = Some("/var/log/x".into()));
    check(&["-B", "auto"], |_| ());
    check(&["-B", "ascii"], |s| s.config.protocol = Protocol::Text);
    check(&["-B", "binary"], |s| s.config.protocol = Protocol::Binary);
    let delimiter = |byte| {
        move |s: &mut Settings| {
            s.config.prefix_delimiter = byte;
            s.config.detail = true;
        }
    };
    check(&["-D", "/"], delimiter(b'/'));
    check(&["-D=:"], delimiter(b'='));
    check(&["-Dab"], delimiter(b'a'));
}

#[test]
fn metrics_have_an_address_with_a_port() {
    for (given, address) in [
        ("127.0.0.1:9150", "127.0.0.1:9150"),
        ("[::1]:9150", "[::1]:9150"),
        ("localhost:0", "127.0.0.1:0"),
        ("six.example:1", "[2001:db8::1]:1"),
        ("*:9150", "0.0.0.0:9150"),
    ] {
        let address = address.parse().unwrap();
        check(&["--metrics-address", given], |s| s.config.metrics_address = Some(address));
    }
    for (given, part) in [
        ("127.0.0.1", "the port is missing"),
        ("::1", "the port is missing"),
        (":9150", "the address is missing"),
        ("127.0.0.1:x", "\"x\" is not a port"),
        ("nowhere.example:1", "Name or service not known"),
    ] {
        check_refused(&["--metrics-address", given], EX_USAGE, part);
    }
    check_refused(&["--slow-command-us", "-1"], EX_USAGE, "not a number of microseconds");
}

#[test]
fn flags_may_be_clustered_attached_long_and_abbreviated() {
    let port = |port: u16| {
        move |s: &mut Settings| {
            let address = |host| Listener::Tcp(SocketAddr::from((host, port)));
            s.config.listeners = vec![address(std::net::Ipv4Addr::UNSPECIFIED)];
            let v6 = SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, port));
            s.config.listeners.push(Listener::Tcp(v6));
            s.config.accepted_only.tcp_port = port.into();
        }
    };
    check(&["-p", "2050"], port(2050));
    check(&["-p2050"], port(2050));
    check(&["-p", " 2050 "], port(2050));
    check(&["--port", "2050"], port(2050));
    check(&["--port=2050"], port(2050));
    check(&["--po=2050"], port(2050));
    check(&["-p", "1", "-p", "2050"], port(2050));
    check(&["-vvd", "-p0"], |s| {
        s.config.verbosity = 2;
        s.process.daemonize = true;
        s.config.listeners.clear();
        s.config.accepted_only.tcp_port = 0;
        s.warnings = vec!["nothing to listen on: -p 0 without -s".to_owned()];
    });
    check(&["--verbose", "--verb", "--verbose=9"], |s| s.config.verbosity = 3);
    check(&["--disable-flush-all"], |s| s.config.flush = false);
    check(&["--disable-f"], |s| s.config.flush = false);
    check(&["--listen-b=7"], |s| s.config.backlog = 7);
    check(&["--", "-v"], |s| s.warnings = vec!["\"-v\" is not an option and is ignored".into()]);
    check(&["what", "-v"], |s| {
        s.config.verbosity = 1;
        s.warnings = vec!["\"what\" is not an option and is ignored".to_owned()];
    });
}

#[test]
fn words_that_are_no_options_are_refused_as_getopt_does() {
    let illegal = "\nIllegal argument \"?\"\n";
    for (words, complaint) in [
        (&["-Q"], "distcached: invalid option -- 'Q'"),
        (&["-vQ"], "distcached: invalid option -- 'Q'"),
        (&["--bogus"], "distcached: unrecognized option '--bogus'"),
        (&["--port"], "distcached: option '--port' requires an argument"),
        (&["--po"], "distcached: option '--port' requires an argument"),
        (&["-p"], "distcached: option requires an argument -- 'p'"),
        (&["-vp"], "distcached: option requires an argument -- 'p'"),
        (&["--daemon=x"], "distcached: option '--daemon' doesn't allow an argument"),
        (&["--help=x"], "distcached: option '--help' doesn't allow an argument"),
        (
            &["--li=x"],
            "distcached: option '--li' is ambiguous; possibilities: '--listen' \
             '--listen-backlog' '--license'",
        ),
    ] {
        check_refused(words, EXIT_FAILURE, &format!("{complaint}{illegal}"));
    }
}

#[test]
fn numbers_are_checked_with_memcached_s_exit_codes() {
    for words in "-c 0|-c -1|-c ten|-c 99999999999999999999|-t 0|-t 1025|-R 0|-f 1.0|-f nan|-f inf|\
                  -n 0|-N 0"
        .split('|')
    {
        check_refused(&split(words), EXIT_FAILURE, &words[..2]);
    }
    for words in "-p 65536|-p -2|-p http|-U 65536|-m 0|-m -1|-m 1|-a 9|-a 1777|-b -1|\
                  -I 1000|-I 256m|-I 1.5m|-I m|-I 1g|-N 5"
        .split('|')
    {
        check_refused(&split(words), EX_USAGE, &words[..2]);
    }
    for (flag, code) in [("-D", EXIT_FAILURE), ("-p", EX_USAGE), ("-s", EX_USAGE), ("-P", EX_USAGE)]
    {
        check_refused(&[flag, ""], code, flag);
        check_refused(&[flag, " "], code, flag);
    }
    check_refused(&["-m", "8192", "-I", "1025m"], EX_USAGE, "above a gigabyte");
    check_refused(&["-m", "999999", "-I", "999999m"], EX_USAGE, "above a gigabyte");
}

#[test]
fn item_sizes_have_suffixes() {
    check(&["-I", "1024"], |s| s.config.item_bytes_max = 1024);
    check(&["-I", "1k"], |s| s.config.item_bytes_max = 1024);
    check(&["-I512K"], |s| s.config.item_bytes_max = 512 << 10);
    check(&["--max-item-size=2m"], |s| s.config.item_bytes_max = 2 << 20);
    // Checked when all is known: the order of the flags does not matter.
    check(&["-I", "128M", "-m", "256"], |s| {
        s.config.item_bytes_max = 128 << 20;
        s.config.memory_bytes_max = 256 << 20;
    });
    check(&["-m", "2048", "-I", "1024m"], |s| {
        s.config.item_bytes_max = 1 << 30;
        s.config.memory_bytes_max = 2 << 30;
    });
}

#[test]
fn ports_choose_what_is_listened_on() {
    check_listen(&["-p", "2050"], &["0.0.0.0:2050", "[::]:2050"]);
    check_listen(&["-p", "-1"], &["0.0.0.0:0", "[::]:0"]);
    check_listen(&["-p", "0"], &[]);
    check_listen(&["-p", "0", "-l", "127.0.0.1:2050"], &[]);
    // UDP is not offered, but -U alone has always moved the TCP port as well.
    check_listen(&["-U", "2050"], &["0.0.0.0:2050", "[::]:2050"]);
    check_listen(&["-U", "2050", "-p", "2051"], &["0.0.0.0:2051", "[::]:2051"]);
    check_listen(&["-U", "0"], &["0.0.0.0:11211", "[::]:11211"]);
    assert!(settings(&["-U", "2050"]).warnings[0].starts_with("UDP (-U) is not offered"));
    assert_eq!(settings(&["-U", "0"]).warnings, [""; 0]);
}

#[test]
fn listen_lists_name_addresses() {
    check_listen(&["-l", "127.0.0.1"], &["127.0.0.1:11211"]);
    check_listen(&["-p", "9", "-l", "127.0.0.1"], &["127.0.0.1:9"]);
    check_listen(&["-l", " 127.0.0.1"], &["127.0.0.1:11211"]);
    check_listen(&["-l", "127.0.0.1:2050"], &["127.0.0.1:2050"]);
    check_listen(&["-l", "127.0.0.1:-1"], &["127.0.0.1:0"]);
    check_listen(&["-l", "127.0.0.1,10.0.0.1:5"], &["127.0.0.1:11211", "10.0.0.1:5"]);
    check_listen(&["-l", "127.0.0.1;10.0.0.1,"], &["127.0.0.1:11211", "10.0.0.1:11211"]);
    check_listen(&["-l", "10.0.0.12", "-l", "10.0.0.1"], &["10.0.0.12:11211", "10.0.0.1:11211"]);
    check_listen(&["-l", "10.0.0.1", "--listen=10.0.0.1"], &["10.0.0.1:11211"]);
    check_listen(&["-l", "::1"], &["[::1]:11211"]);
    check_listen(&["-l", "[::1]"], &["[::1]:11211"]);
    check_listen(&["-l", "[::1]:2050"], &["[::1]:2050"]);
    check_listen(&["-l", "*"], &["0.0.0.0:11211", "[::]:11211"]);
    check_listen(&["-l", "*:2050"], &["0.0.0.0:2050", "[::]:2050"]);
    check_listen(&["-l", "localhost"], &["127.0.0.1:11211", "[::1]:11211"]);
    check_listen(&["-l", "six.example:7"], &["[2001:db8::1]:7", "[2001:db8::2]:7"]);
    check_listen(&["-l", "notls:127.0.0.1:5"], &["127.0.0.1:5"]);
    check_listen(&["-l", "proto[ascii]:127.0.0.1:5"], &["127.0.0.1:5"]);
    check_listen(&["-l", "notls:proto[negotiating]:tag[web]:[::1]:5"], &["[::1]:5"]);
    check_listen(&["-l", "tag_web_:localhost:5"], &["127.0.0.1:5", "[::1]:5"]);
    check_listen(&["-l", "proto[binary]:[::1]"], &["[::1]:11211"]);
    let own = settings(&["-l", "127.0.0.1:1,proto[binary]:127.0.0.1:2,proto[ascii]:127.0.0.1:3"]);
    let at = |text: &str| text.parse().unwrap();
    let protocols = [(at("127.0.0.1:2"), Protocol::Binary), (at("127.0.0.1:3"), Protocol::Text)];
    assert_eq!(own.config.protocols, protocols);
    let inter = settings(&["-l", "10.0.0.1", "-l", "tag_a_:[::1]"]).config.accepted_only.inter;
    assert_eq!(inter.as_deref(), Some("10.0.0.1,tag_a_:[::1]"));
}

#[test]
fn listen_lists_that_name_no_address_are_refused() {
    check_refused(&["-l", "fooble"], EX_OSERR, "failed to listen on one of interface(s) fooble: ");
    check_refused(&["-l", "127.0.0.1,fooble:3"], EX_OSERR, "Name or service not known");
    check_refused(&["-l", ""], EX_USAGE, "-l");
    for entry in split(
        ", :2050 127.0.0.1: 127.0.0.1:http 127.0.0.1:70000 [::1 [::1]2050 []:5 \
         proto[http]:127.0.0.1 proto[ascii tag[]:127.0.0.1 tag_ninechars_:127.0.0.1",
    ) {
        check_refused(&["-l", entry], EX_USAGE, "-l");
    }
}

#[test]
fn a_machine_without_ipv6_leaves_it_out() {
    let around = Surroundings { ipv6: false, ..surroundings() };
    for (words, addresses) in [
        (vec![], vec!["0.0.0.0:11211"]),
        (vec!["-l", "localhost"], vec!["127.0.0.1:11211"]),
        // Asked for by number, it is tried, and the message will tell.
        (vec!["-l", "::1"], vec!["[::1]:11211"]),
        (vec!["-l", "six.example"], vec!["[2001:db8::1]:11211", "[2001:db8::2]:11211"]),
    ] {
        match parse_words(&words, &around) {
            Ok(Action::Run(found)) => assert_eq!(found.config.listeners, tcp(&addresses)),
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[test]
fn what_a_system_does_not_have_is_refused_by_name() {
    let absent = &[('d', "it stays in the foreground"), ('s', "there are no Unix sockets")];
    let around = Surroundings { absent, ..surroundings() };
    for (words, letter, why) in [
        (["-d", "-v"], 'd', "it stays in the foreground"),
        (["-vd", "-v"], 'd', "it stays in the foreground"),
        (["--daemon", "-v"], 'd', "it stays in the foreground"),
        (["-s", "/tmp/x"], 's', "there are no Unix sockets"),
        (["--unix-sock", "/tmp/x"], 's', "there are no Unix sockets"),
    ] {
        let system = std::env::consts::OS;
        let expected = Exit::usage(format!("-{letter} is not there on {system}: {why}"));
        assert_eq!(parse_words(&words, &around), Err(expected), "{words:?}");
    }
    assert!(parse_words(&["-p", "1"], &around).is_ok());
}

#[test]
fn a_unix_socket_replaces_tcp() {
    check(&["-s", "/tmp/x"], |s| {
        s.config.listeners = vec![Listener::Unix("/tmp/x".into(), 0o700)];
    });
    check(&["-s", "/tmp/x", "-a", "0660"], |s| {
        s.config.listeners = vec![Listener::Unix("/tmp/x".into(), 0o660)];
        s.config.accepted_only.unix_mode = 0o660;
    });
    let both = settings(&["-s", "/tmp/x", "-l", "127.0.0.1"]);
    assert_eq!(both.config.listeners, [Listener::Unix("/tmp/x".into(), 0o700)]);
    assert_eq!(both.warnings, ["-s replaces TCP: the addresses of -l are not listened on"]);
}

#[test]
fn sasl_needs_a_file_of_users() {
    let nobody = "-S knows users by -Y FILE or by the file that MEMCACHED_SASL_PWDB names";
    check_refused(&["-S"], EX_USAGE, nobody);
    check_refused(&["-S", "-Y", "/u", "-B", "http"], EX_USAGE, "binding protocol");
    check_refused(&["-Y", "/u", "-B", "binary"], EX_USAGE, "without -S");
    check_refused(&["-Y", "/u", "-l", "proto[binary]:127.0.0.1"], EX_USAGE, "without -S");
    check(&["-S", "-Y", "/u"], |s| {
        s.config.sasl = true;
        s.config.auth_file = Some("/u".into());
    });
    let around = Surroundings { sasl_file: Some("/pw".into()), ..surroundings() };
    match parse_words(&["-S"], &around) {
        Ok(Action::Run(found)) => assert_eq!(found.config.sasl_file, Some("/pw".into())),
        other => panic!("{other:?}"),
    }
    for protocol in ["ascii", "auto"] {
        match parse_words(&["-S", "-B", protocol], &around) {
            Err(exit) => assert!(exit.message.contains("without -Y"), "{exit}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn the_environment_names_the_ports_file() {
    let around = Surroundings { port_file: Some("/tmp/ports".into()), ..surroundings() };
    for (words, expect) in [(&[][..], Some("/tmp/ports")), (&["-s", "/tmp/x"], None)] {
        match parse_words(words, &around) {
            Ok(Action::Run(found)) => assert_eq!(found.config.port_file, expect.map(PathBuf::from)),
            other => panic!("{words:?}: {other:?}"),
        }
    }
}

#[test]
fn threads_default_to_cores() {
    for (cores, workers) in [(1, 1), (96, 96), (5000, WORKERS_LIMIT)] {
        match parse_words(&[], &Surroundings { cores, ..surroundings() }) {
            Ok(Action::Run(found)) => assert_eq!(found.config.workers, workers),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(settings(&["-t", "64"]).warnings, [""; 0]);
    assert!(settings(&["-t", "65"]).warnings[0].starts_with("more than 64 threads"));
}

#[test]
fn what_is_dangerous_to_ignore_is_refused() {
    for words in "\
                  -o proxy_config=routelib|-o hashpower=20,proxy_arg=x|-o sock_cookie_id=1|\
                  -l proto[proxy]:127.0.0.1|-l 127.0.0.1,notls:proto[proxy]:tag_x_:[::1]:5"
        .split('|')
    {
        check_refused(&split(words), EX_USAGE, "is not offered: ");
    }
    check_refused(&["-B", "http"], EX_USAGE, "Invalid value for binding protocol: http");
}

#[test]
fn other_units_of_memory_are_refused_with_what_to_write() {
    for (given, part) in [
        ("2g", "-m 2g: the number is of megabytes: -m 2048"),
        ("1GB", ": -m 1024"),
        ("1048577k", ": -m 1025"),
        ("64 kb", ": -m 1"),
        ("5x", "\"5x\" is not a whole number"),
        ("m", "\"\" is not a whole number"),
        ("0m", "out of range"),
    ] {
        check_refused(&["-m", given], EX_USAGE, part);
    }
}

/// What charts of other programs start memcached with.
#[test]
fn a_flash_file_is_let_pass_and_said_once() {
    let flags = [
        "-m 8192",
        "--extended=modern,track_sizes,ext_path=/data/file:9G,ext_wbuf_size=16",
        "-I",
        "5m",
        "-c",
        "16384",
        "-v",
        "-u",
        "11211",
    ];
    let found = settings(&flags);
    assert_eq!(found.config.memory_bytes_max, 8192 << 20);
    let about = found.warnings.iter().filter(|line| line.contains("ext_path"));
    assert_eq!(about.count(), 1, "{:?}", found.warnings);
    assert!(found.warnings[0].contains("there is no flash tier"), "{:?}", found.warnings);
    let others = without_effect("-o modern, -o track_sizes, -o ext_wbuf_size");
    assert_eq!(found.warnings[1..], [others]);
}

#[test]
fn a_memory_file_means_a_directory_beside_it() {
    let found = settings(&["-m", "1024", "-e", "/mnt/pmem/file"]);
    let kept = found.config.durability.unwrap();
    assert_eq!(kept.directory, PathBuf::from("/mnt/pmem/file.data"));
    assert_eq!(kept.log_bytes_max, 1024 << 20);
    assert_eq!(found.config.accepted_only.memory_file, Some("/mnt/pmem/file".into()));
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains("in the directory /mnt/pmem/file.data"));
    // Who says where means it.
    let found = settings(&["-e", "/mnt/pmem/file", "--data-dir=/d"]);
    assert_eq!(found.config.durability.unwrap().directory, PathBuf::from("/d"));
    assert_eq!(found.warnings, [""; 0]);
}

/// `-Z` with a certificate and a key, and what else is given.
fn with_tls(words: &str) -> Vec<String> {
    let words = format!("-Z -o ssl_chain_cert=/c,ssl_key=/k {words}");
    split(&words).into_iter().map(str::to_owned).collect()
}

fn tls_settings(words: &str) -> Settings {
    let words = with_tls(words);
    settings(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The words make just this change to the settings of `-Z`, and are warned of like this.
fn check_tls(words: &str, change: impl FnOnce(&mut TlsConfig), warnings: &[&str]) {
    let found = tls_settings(words);
    let mut expect = TlsConfig {
        chain_cert: PathBuf::from("/c"),
        key: PathBuf::from("/k"),
        ..TlsConfig::default()
    };
    change(&mut expect);
    assert_eq!(found.config.tls, Some(expect), "{words}");
    assert_eq!(found.warnings, warnings, "{words}");
}

#[test]
fn tls_options() {
    use ClientCertificates::{Ignored, Optional, Required};
    let verified = |clients, verify_mode| {
        move |t: &mut TlsConfig| {
            t.ca_cert = Some("/a".into());
            (t.clients, t.verify_mode) = (clients, verify_mode);
        }
    };
    check_tls("", |_| (), &[]);
    check_tls("-o ssl_verify_mode=0,ssl_ca_cert=/a", verified(Ignored, 0), &[]);
    check_tls("-o ssl_verify_mode=1,ssl_ca_cert=/a", verified(Optional, 1), &[]);
    check_tls("-o ssl_verify_mode=2 -o ssl_ca_cert=/a", verified(Required, 3), &[]);
    check_tls("-o ssl_ca_cert=/a,ssl_verify_mode=3", verified(Required, 7), &[]);
    let alone = "-o ssl_verify_mode=1 has no effect without ssl_ca_cert";
    check_tls("-o ssl_verify_mode=1", |t| t.verify_mode = 1, &[alone]);
    check_tls("-o ssl_keyformat=1", |_| (), &[]);
    check_tls("-o ssl_keyformat=2", |t| t.key_format = KeyFormat::Der, &[]);
    check_tls("-o ssl_session_cache", |t| t.session_cache = true, &[]);
    check_tls("-o ssl_min_version=2", |_| (), &[]);
    check_tls("-o ssl_min_version=3", |t| t.min_version = TlsVersion::V1_3, &[]);
    let served = "TLS 1.0 and 1.1 are not offered; served from 1.2 on";
    check_tls("-o ssl_min_version=0", |_| (), &[&format!("-o ssl_min_version=0: {served}")]);
    check_tls("-o ssl_min_version=1", |_| (), &[&format!("-o ssl_min_version=1: {served}")]);
    let list = "ECDHE-RSA-AES128-GCM-SHA256:AES128-SHA:!aNULL";
    check_tls(
        &format!("-o ssl_ciphers={list}"),
        |t| t.ciphers = Some(list.to_owned()),
        &["-o ssl_ciphers: not there, and not offered: AES128-SHA"],
    );
    let buffer = |t: &mut TlsConfig| t.write_buffer_bytes = 64 << 10;
    check_tls("-o ssl_wbuf_size=64", buffer, &[&without_effect("-o ssl_wbuf_size")]);
    let kernel = |t: &mut TlsConfig| t.kernel_tls = true;
    check_tls("-o ssl_kernel_tls", kernel, &[&without_effect("-o ssl_kernel_tls")]);
}

#[test]
fn tls_options_that_cannot_be_followed() {
    for (words, code, part) in [
        ("-Z", EX_USAGE, "-Z needs -o ssl_chain_cert=FILE"),
        ("--enable-ssl -o ssl_key=/k", EX_USAGE, "-Z needs -o ssl_chain_cert=FILE"),
        ("-Z -o ssl_chain_cert=/c", EX_USAGE, "-Z needs -o ssl_key=FILE"),
        ("-l btls:127.0.0.1", EX_USAGE, "btls: needs TLS: -Z"),
        ("-l 127.0.0.1,mtls:[::1]:5", EX_USAGE, "mtls: needs TLS: -Z"),
    ] {
        check_refused(&split(words), code, part);
    }
    for (words, code, part) in [
        ("-p 0", EX_USAGE, "You cannot enable SSL without a TCP port"),
        ("-o ssl_verify_mode=2", EX_USAGE, "-o ssl_ca_cert=FILE"),
        ("-l mtls:127.0.0.1", EX_USAGE, "-o ssl_ca_cert=FILE"),
        ("-o ssl_verify_mode=4", EXIT_FAILURE, "-o ssl_verify_mode"),
        ("-o ssl_verify_mode", EXIT_FAILURE, "-o ssl_verify_mode"),
        ("-o ssl_min_version=4", EXIT_FAILURE, "-o ssl_min_version"),
        ("-o ssl_keyformat=3", EXIT_FAILURE, "-o ssl_keyformat"),
        ("-o ssl_ciphers=RC4-MD5", EXIT_FAILURE, "-o ssl_ciphers"),
        ("-o ssl_ciphers=HIGH:!AES128", EXIT_FAILURE, "!AES128 is not understood"),
        ("-o ssl_ciphers", EXIT_FAILURE, "-o ssl_ciphers"),
        ("-o ssl_key=", EXIT_FAILURE, "-o ssl_key"),
        ("-o ssl_ca_cert", EXIT_FAILURE, "-o ssl_ca_cert"),
        ("-o ssl_wbuf_size=x", EXIT_FAILURE, "-o ssl_wbuf_size"),
        ("-o ssl_what=1", EXIT_FAILURE, "Illegal suboption"),
    ] {
        let words = with_tls(words);
        check_refused(&words.iter().map(String::as_str).collect::<Vec<_>>(), code, part);
    }
}

#[test]
fn tls_is_a_matter_of_each_listener() {
    use ClientCertificates::{Ignored, Optional, Required};
    let at = |text: &str| text.parse().unwrap();
    let (one, two) = ("127.0.0.1:1", "127.0.0.1:2");
    for (words, expected) in [
        (
            "",
            vec![
                Listener::Tls(at("0.0.0.0:11211"), Ignored),
                Listener::Tls(at("[::]:11211"), Ignored),
            ],
        ),
        (
            "-l 127.0.0.1:1,notls:127.0.0.1:2",
            vec![Listener::Tls(at(one), Ignored), Listener::Tcp(at(two))],
        ),
        (
            "-o ssl_ca_cert=/a,ssl_verify_mode=1 -l 127.0.0.1:1;mtls:127.0.0.1:2;btls:[::1]:3",
            vec![
                Listener::Tls(at(one), Optional),
                Listener::Tls(at(two), Required),
                Listener::Tls(at("[::1]:3"), Ignored),
            ],
        ),
        (
            "-o ssl_ca_cert=/a -l mtls:proto[ascii]:tag_tools_:127.0.0.1:1",
            vec![Listener::Tls(at(one), Required)],
        ),
    ] {
        assert_eq!(tls_settings(words).config.listeners, expected, "{words}");
    }
    let unix = tls_settings("-s /s");
    assert_eq!(unix.config.listeners, [Listener::Unix("/s".into(), 0o700)]);
    assert!(unix.warnings[0].contains("served without TLS"), "{:?}", unix.warnings);

    // Without -Z nothing is encrypted; memcached says nothing about it.
    let without = settings(&["-o", "ssl_chain_cert=/c,ssl_key=/k", "-l", "notls:127.0.0.1:1"]);
    assert_eq!(without.config.listeners, tcp(&[one]));
    assert_eq!(without.config.tls, None);
    assert_eq!(without.warnings, ["no effect without -Z: -o ssl_chain_cert, ssl_key"]);
    let without = settings(&["-o", "ssl_ciphers=RC4-MD5"]);
    assert_eq!(without.warnings, ["no effect without -Z: -o ssl_ciphers"]);
}

#[test]
fn what_means_nothing_here_is_remembered_and_named_once() {
    check(&["-f", "1.08"], |s| {
        s.config.accepted_only.growth_factor = 1.08;
        s.warnings = vec![without_effect("-f")];
    });
    check(&["-n", "8"], |s| {
        s.config.accepted_only.chunk_size = 8;
        s.warnings = vec![without_effect("-n")];
    });
    check_unused(&["-L"], "-L", &[]);
    check_unused(&["-N", "4"], "-N", &[("num_napi_ids", "4")]);
    check_unused(
        &["-L", "-o", "hashpower=20,slab_reassign", "-L", "-o", "no_lru_crawler"],
        "-L, -o hashpower, -o slab_reassign, -o no_lru_crawler",
        &[("hashpower_init", "20"), ("lru_crawler", "no")],
    );
}

#[test]
fn heeded_extended_options() {
    check(&["-o", "maxconns_fast"], |_| ());
    check(&["-o", "no_maxconns_fast"], |s| s.config.connections_refuse_fast = false);
    check(&["-o", "no_maxconns_fast,maxconns_fast"], |_| ());
    check(&["-o", "idle_timeout=30,"], |s| s.config.idle_timeout_seconds = 30);
    check(&["--extended=idle_timeout=30"], |s| s.config.idle_timeout_seconds = 30);
    check(&["-o", "idle_timeout=-1"], |_| ());
    check(&["-o", "idle_timeout=99999999999"], |s| s.config.idle_timeout_seconds = u32::MAX);
    check(&["-o", ""], |_| ());
    let modern = settings(&["-o", "no_modern"]);
    assert!(!modern.config.connections_refuse_fast);
    assert_eq!(modern.config.accepted_only.hash_algorithm, "jenkins");
    assert_eq!(modern.config.accepted_only.unused("slab_reassign"), Some("no"));
}

#[test]
fn every_extended_option_without_effect() {
    for (given, lines) in [
        ("slab_automove", &[("slab_automove", "1")][..]),
        ("slab_automove=2", &[("slab_automove", "2")]),
        ("slab_automove_ratio=0.5", &[("slab_automove_ratio", "0.50")]),
        ("slab_automove_window=1800", &[("slab_automove_window", "1800")]),
        ("slab_chunk_max=16", &[("slab_chunk_max", "16384")]),
        ("slab_chunk_max=16384", &[("slab_chunk_max", "16384")]),
        ("slab_automove=x", &[("slab_automove", "0")]),
        ("slab_automove_window=1801", &[("slab_automove_window", "1801")]),
        ("slab_automove_freeratio=-1", &[("slab_automove_freeratio", "-1.000")]),
        ("hashpower=20x", &[("hashpower_init", "20")]),
        ("temporary_ttl=-1", &[("temporary_ttl", "-1"), ("temp_lru", "yes")]),
        ("watcher_logbuf_size=4194304", &[("watcher_logbuf_size", "4294967296")]),
        ("read_buf_mem_limit=4096", &[("read_buf_mem_limit", "4294967296")]),
        ("ext_item_size=4294967296", &[("ext_item_size", "4294967296")]),
        ("ext_max_frag=-1", &[("ext_max_frag", "-1.00")]),
        ("ext_drop_unread", &[("ext_drop_unread", "yes")]),
        ("no_chunked_items", &[("slab_chunk_max", "1048576")]),
        ("slab_sizes=100-200-300", &[]),
        ("tail_repair_time=10", &[("tail_repair_time", "10")]),
        ("lru_crawler_sleep=1000000", &[("lru_crawler_sleep", "1000000")]),
        ("lru_crawler_tocrawl=4294967295", &[("lru_crawler_tocrawl", "4294967295")]),
        ("no_lru_maintainer", &[("lru_maintainer_thread", "no"), ("lru_segmented", "no")]),
        ("hot_lru_pct=40", &[("hot_lru_pct", "40")]),
        ("warm_max_factor=3", &[("warm_max_factor", "3.00")]),
        ("temporary_ttl=20", &[("temporary_ttl", "20"), ("temp_lru", "yes")]),
        ("watcher_logbuf_size=64", &[("watcher_logbuf_size", "65536")]),
        ("read_buf_mem_limit=1", &[("read_buf_mem_limit", "1048576")]),
        ("track_sizes", &[("track_sizes", "yes")]),
        ("relaxed_privileges", &[]),
        ("modern", &[]),
        ("ext_threads=2", &[]),
    ] {
        let name = given.split('=').next().unwrap_or_default();
        check_unused(&["-o", given], &format!("-o {name}"), lines);
    }
    let hashed = settings(&["-o", "hash_algorithm=xxh3"]).config.accepted_only.hash_algorithm;
    assert_eq!(hashed, "xxh3");
}

#[test]
fn extended_options_are_checked() {
    for given in split(
        "hashpower hashpower= hashpower=11 hashpower=33 hashpower=x slab_automove=3 \
         slab_automove_ratio=0 slab_automove_ratio=1.5 slab_automove_window=2 slab_sizes \
         slab_automove_freeratio=x ext_max_frag=x ext_path \
         slab_chunk_max=0 slab_chunk_max=x tail_repair_time=9 hash_algorithm \
         hash_algorithm=md5 lru_crawler_sleep=1000001 lru_crawler_tocrawl=4294967296 \
         hot_lru_pct=0 warm_lru_pct=80 hot_max_factor=0 temporary_ttl idle_timeout \
         idle_timeout=x watcher_logbuf_size=-1 read_buf_mem_limit=4294967296 \
         ext_threads ext_item_size=-1",
    ) {
        let name = given.split('=').next().unwrap_or_default();
        check_refused(&["-o", given], EXIT_FAILURE, &format!("-o {name}"));
    }
    for given in split(
        "hot_lru_pct=41 no_lru_maintainer,temporary_ttl=3 slab_sizes=1-2 slab_sizes=64-72 \
         slab_sizes=100-x slab_sizes=100-90 slab_sizes=524289",
    ) {
        check_refused(&["-o", given], EX_USAGE, "-o ");
    }
    check_refused(&["-o", "foo"], EXIT_FAILURE, "Illegal suboption \"foo\"");
    check_refused(&["-o", "modern,foo=1,bar"], EXIT_FAILURE, "Illegal suboption \"foo=1\"");
    check_refused(&["-o", "modern,,modern"], EXIT_FAILURE, "Illegal suboption \"\"");
}

#[test]
fn texts_are_what_tools_read() {
    let text = |flag| match parse_words(&[flag], &surroundings()) {
        Ok(Action::Print(text)) => text,
        other => panic!("{flag}: {other:?}"),
    };
    let version = text("-V");
    assert!(version.starts_with("distcached 1.6.45\ndistcache "), "{version}");
    assert!(text("-i").contains("MIT OR Apache-2.0"));

    let help = text("-h");
    assert_eq!(text("--help"), help);
    assert!(help.starts_with(&version));
    let place = |what: &str| help.find(what).expect(what);
    assert!(place("usage: distcached") < place("Memory:"));
    assert!(place("--data-dir=<dir>") < place("Network:"));
    let named = |name: &str, flag: &str| match parse_in(
        [name, flag].map(OsString::from),
        &surroundings(),
    ) {
        Ok(Action::Print(text)) => text,
        other => panic!("{name} {flag}: {other:?}"),
    };
    // Scripts that start memcached look for its name and its number.
    assert_eq!(named("/usr/bin/memcached", "-V"), "memcached 1.6.45\n");
    assert!(named("memcached", "-h").starts_with("memcached 1.6.45\ndistcache "));
    assert_eq!(named("./distcached", "-h"), help);
    assert_eq!(help.contains("--unix-socket=<file>"), cfg!(unix));
    // Test suites search for these to learn what is built in.
    assert!(help.contains("--enable-ssl"));
    assert!(help.contains("--enable-sasl"));
    for absent in ["ext_path", "proxy_config", "drop_privileges", "udp"] {
        assert!(!help.to_lowercase().contains(absent), "{absent}");
    }
    assert!(help.lines().all(|line| line.len() <= 80 && line.is_ascii()), "{help}");
}

#[test]
fn tables_hold_together() {
    let all: Vec<&Opt> = options().collect();
    for (index, option) in all.iter().enumerate() {
        let others = &all[..index];
        let is_free = others.iter().all(|other| other.short != option.short);
        assert!(is_free || option.short == table::LONG_ONLY, "{}", option.short);
        assert!(option.long.is_empty() || others.iter().all(|other| other.long != option.long));
        let takes_value = matches!(option.effect, Value(_));
        assert_eq!(takes_value, !option.value.is_empty(), "{}", option.short);
    }
}
