//! What those who watch a client see. Goal: each call to a server is in the latencies, is a span of
//! `tracing` and a measurement of `metrics`, in both faces, and shows neither keys nor values.
//! Method: a subscriber and a recorder of the test's own, for its thread alone.

#![cfg(all(feature = "server", feature = "tokio", feature = "tracing", feature = "metrics"))]

use distcache::client::{Client, Config, Error, asynchronous};
use distcache::server::Server;
use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Subscriber};

/// The fields of a span, and how often it was entered.
type Span = (BTreeMap<&'static str, String>, u32);

/// Spans, by their numbers.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<Span>>>);

struct Fields<'f>(&'f mut BTreeMap<&'static str, String>);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Subscriber for Spans {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "distcache::client"
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        assert_eq!(span.metadata().name(), "distcache.call");
        let mut fields = BTreeMap::new();
        span.record(&mut Fields(&mut fields));
        let mut spans = self.0.lock().unwrap();
        spans.push((fields, 0));
        Id::from_u64(spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut spans = self.0.lock().unwrap();
        values.record(&mut Fields(&mut spans[span.into_u64() as usize - 1].0));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, _: &Event<'_>) {}

    fn enter(&self, span: &Id) {
        self.0.lock().unwrap()[span.into_u64() as usize - 1].1 += 1;
    }

    fn exit(&self, _: &Id) {}
}

/// Numbers by name and labels: of counters their sum, of histograms how many values.
#[derive(Clone, Default)]
struct Numbers(Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>);

struct Seconds(Arc<AtomicU64>);

impl HistogramFn for Seconds {
    fn record(&self, seconds: f64) {
        assert!((0.0..60.0).contains(&seconds), "{seconds}");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Numbers {
    fn of(&self, key: &Key) -> Arc<AtomicU64> {
        let labels = key.labels().filter(|label| label.key() != "server");
        let labels: Vec<String> =
            labels.map(|one| format!("{}={}", one.key(), one.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn read(&self, name: &str) -> u64 {
        self.0.lock().unwrap().get(name).map_or(0, |number| number.load(Ordering::Relaxed))
    }
}

impl Recorder for Numbers {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.of(key))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(Arc::new(Seconds(self.of(key))))
    }
}

fn watched(calls: impl FnOnce()) -> (Spans, Numbers) {
    let (spans, numbers) = (Spans::default(), Numbers::default());
    tracing::subscriber::with_default(spans.clone(), || {
        metrics::with_local_recorder(&numbers, calls);
    });
    (spans, numbers)
}

fn check((spans, numbers): &(Spans, Numbers), address: &str, last: &Error) {
    let spans = spans.0.lock().unwrap();
    // The connection may be found closed before something is sent on it, or after that.
    let last = match last {
        Error::Io { .. } => "io",
        Error::Connect { .. } => "connect",
        other => panic!("{other}"),
    };
    let names: Vec<&str> =
        spans.iter().map(|(fields, _)| fields["db.operation.name"].as_str()).collect();
    assert_eq!(names, ["set", "get", "get", "incr", "many", "many", "version", "set"]);
    for (fields, entered) in spans.iter() {
        assert_eq!(fields["server.address"], address);
        assert_eq!(fields["db.system.name"], "memcached");
        assert!(*entered > 0 || fields["db.operation.name"] == "many");
        let shown = format!("{fields:?}");
        assert!(!shown.contains("football") && !shown.contains("brazil"), "{shown}");
    }
    let errors = spans.iter().map(|(fields, _)| fields.get("error.type").map(String::as_str));
    let errors: Vec<Option<&str>> = errors.collect();
    assert_eq!((errors[3], errors[4], errors[7]), (Some("refused"), None, Some(last)));
    assert_eq!(errors.iter().flatten().count(), 2);
    for (name, expected) in [
        ("distcache_client_call_seconds operation=get outcome=ok", 2),
        ("distcache_client_call_seconds operation=incr outcome=refused", 1),
        ("distcache_client_call_seconds operation=many outcome=ok", 2),
        ("distcache_client_call_seconds operation=set outcome=ok", 1),
        (&format!("distcache_client_call_seconds operation=set outcome={last}"), 1),
        ("distcache_client_reads_total found=true", 3),
        ("distcache_client_reads_total found=false", 2),
        ("distcache_client_events_total event=ejected", 1),
    ] {
        let read = numbers.read(name);
        assert_eq!(read, expected, "{name} of {:?}", numbers.0.lock().unwrap().keys());
    }
}

fn config() -> Config {
    Config { failures_max: 1, check_every: None, ..Config::default() }
}

#[test]
fn calls_are_seen() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0].to_string();
    let client = Client::with_config([&address], config()).unwrap();
    let mut last = None;
    let seen = watched(|| {
        client.set("brazil", "football").unwrap();
        client.get::<String>("brazil").unwrap();
        client.get::<String>("none").unwrap();
        client.incr("brazil", 1).unwrap_err();
        client.set_many([("a", 1), ("b", 2)]).all().unwrap();
        client.get_many::<u8>(["a", "b", "none"]).all().unwrap();
        client.version();
        server.stop();
        last = client.set("brazil", "football").err();
    });
    check(&seen, &address, &last.unwrap());
    let (_, latencies) = client.latencies().remove(0);
    assert_eq!(latencies.count(), 7, "the last one has no answer");
    assert!(latencies.percentile(100.0) < Duration::from_secs(60));
    assert!(latencies.sum() >= latencies.percentile(100.0) * 15 / 16);
}

#[test]
fn calls_of_tasks_are_seen() {
    let server = Server::bind("127.0.0.1:0").unwrap();
    let address = server.addresses()[0].to_string();
    let client = asynchronous::Client::with_config([&address], config()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let calls = async {
        client.set("brazil", "football").await.unwrap();
        client.get::<String>("brazil").await.unwrap();
        client.get::<String>("none").await.unwrap();
        client.incr("brazil", 1).await.unwrap_err();
        client.set_many([("a", 1), ("b", 2)]).await.all().unwrap();
        client.get_many::<u8>(["a", "b", "none"]).await.all().unwrap();
        client.version().await;
        server.stop();
        client.set("brazil", "football").await.unwrap_err()
    };
    let mut last = None;
    let seen = watched(|| last = Some(runtime.block_on(calls)));
    check(&seen, &address, &last.unwrap());
    assert_eq!(client.latencies()[0].1.count(), 7);
}
