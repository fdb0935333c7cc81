//! The tasks, against small servers in the test.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::task::pause;
use super::*;
use crate::engines::access::MetricsUrl;

/// An engine that answers every request with what stands in `pages`, the last one for ever.
async fn engine(pages: &'static [&'static str]) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let port = listener.local_addr().expect("a bound address").port();
    let overlap = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&overlap);
    tokio::spawn(async move {
        let open = Arc::new(AtomicU32::new(0));
        let mut requests = 0;
        while let Ok((mut stream, _)) = listener.accept().await {
            let page = pages[requests.min(pages.len() - 1)];
            requests += 1;
            let (open, seen) = (Arc::clone(&open), Arc::clone(&seen));
            tokio::spawn(async move {
                if open.fetch_add(1, Ordering::SeqCst) > 0 {
                    seen.store(true, Ordering::SeqCst);
                }
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(page.as_bytes()).await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (port, overlap)
}

fn places(proc: &Path) -> Places {
    Places { proc: proc.to_owned(), logs: "/nonexistent".into(), annotated: watch::channel(Vec::new()).1 }
}

fn nowhere() -> Places {
    places(Path::new("/nonexistent"))
}

fn target(port: u16) -> Target {
    Target {
        name: EngineName::try_from("e".to_owned()).expect("a good name"),
        access: Access::plain(MetricsUrl::try_from(format!("http://127.0.0.1:{port}")).expect("a good url")),
        dialect: Choice::Auto,
        interval: Interval::try_from("250ms".to_owned()).expect("a good interval"),
        model: Some("m".to_owned()),
    }
}

const PAGE: &str = "HTTP/1.1 200 OK\r\n\r\nllamacpp:requests_processing 2\nllamacpp:tokens_predicted_total 10\n";
const BROKEN: &str = "HTTP/1.1 501 Not Implemented\r\n\r\n{}";
const STRANGE: &str = "HTTP/1.1 200 OK\r\n\r\nup 1\n";

/// One sample in words: source, then name, labels and value of every point.
fn say(message: &Message) -> String {
    let Message::Sample(sample) = message else { return "an event".to_owned() };
    let points = match &sample.points {
        Ok(points) => points
            .iter()
            .filter(|point| !point.series.name.contains("duration") && !point.series.name.contains("age"))
            .map(|point| {
                let name = point.series.name.trim_start_matches("plumbline_engine_");
                format!("{name}{:?}={}", point.labels, point.number().unwrap_or(f64::NAN))
            })
            .collect::<Vec<_>>()
            .join(" "),
        Err(why) => format!("nothing: {why}"),
    };
    format!("{} {points}", sample.source)
}

/// What was said before `last`, which must come in time.
async fn until(samples: &mut mpsc::Receiver<Message>, last: &str) -> Vec<String> {
    let collect = async {
        let mut said = Vec::new();
        loop {
            match next(samples).await {
                found if found == last => return said,
                other => said.push(other),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), collect).await.expect("the awaited sample comes")
}

async fn next(samples: &mut mpsc::Receiver<Message>) -> String {
    let message = tokio::time::timeout(Duration::from_secs(10), samples.recv()).await.expect("a sample in time");
    say(&message.expect("the sender lives"))
}

#[tokio::test]
async fn an_engine_that_fails_and_returns_is_absent_meanwhile_and_counted() {
    let (port, overlap) = engine(&[PAGE, BROKEN, STRANGE, PAGE]).await;
    let (sender, mut samples) = mpsc::channel(1);
    let (stop, stopped) = watch::channel(false);
    let config = Engines { discover: false, targets: vec![target(port)] };
    let running = tokio::spawn(run(config, nowhere(), Incident::default(), sender, stopped));
    let reading = "engine:e requests_running[\"e\", \"m\"]=2 generation_tokens_total[\"e\", \"m\"]=10";
    let own = |up: u8, errors: &str| {
        let info = format!(
            " info[\"e\", \"llamacpp\", \"\", \"http://127.0.0.1:{port}/metrics\"]=1 unmapped_families[\"e\"]=0"
        );
        let info = if up == 1 { info } else { String::new() };
        format!("scrape:e up[\"e\"]={up} unusable_lines_total[\"e\"]=0{info}{errors}")
    };
    let one = " scrape_errors_total[\"e\", \"status\"]=1";
    let two = " scrape_errors_total[\"e\", \"status\"]=1 scrape_errors_total[\"e\", \"unrecognised\"]=1";
    assert_eq!(next(&mut samples).await, reading);
    assert_eq!(next(&mut samples).await, own(1, ""));
    assert_eq!(next(&mut samples).await, "engine:e nothing: the engine answered 501 Not Implemented, not 200");
    assert_eq!(next(&mut samples).await, own(0, one));
    assert_eq!(next(&mut samples).await, "engine:e nothing: no dialect recognises the page");
    assert_eq!(next(&mut samples).await, own(0, two));
    assert_eq!(next(&mut samples).await, reading);
    assert_eq!(next(&mut samples).await, own(1, two));
    stop.send(true).expect("the tasks listen");
    tokio::time::timeout(Duration::from_secs(5), running).await.expect("it stops when told").expect("no panic");
    assert!(!overlap.load(Ordering::SeqCst), "one request in flight");
}

/// As behind a proxy that is pointed at another engine: nothing of the first is left.
#[tokio::test]
async fn a_page_in_another_dialect_than_before_is_read_as_what_it_is() {
    const OTHER: &str = "HTTP/1.1 200 OK\r\n\r\nvllm:num_requests_running{model_name=\"b\"} 7\n";
    let (port, _) = engine(&[PAGE, OTHER]).await;
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let config = Engines { discover: false, targets: vec![target(port)] };
    let _running = tokio::spawn(run(config, nowhere(), Incident::default(), sender, stopped));
    until(&mut samples, "engine:e requests_running[\"e\", \"b\"]=7").await;
    let said = next(&mut samples).await;
    assert!(said.contains("info[\"e\", \"vllm\""), "{said}");
}

#[tokio::test]
async fn a_broken_engine_does_not_hold_up_another() {
    // Accepts into the backlog and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let mut slow = target(silent.local_addr().expect("a bound address").port());
    slow.name = EngineName::try_from("slow".to_owned()).expect("a good name");
    let (port, _) = engine(&[PAGE]).await;
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let config = Engines { discover: false, targets: vec![slow, target(port)] };
    let _running = tokio::spawn(run(config, nowhere(), Incident::default(), sender, stopped));
    let said = until(&mut samples, "engine:slow nothing: no whole answer within 2s").await;
    let good = said.iter().filter(|said| said.starts_with("engine:e requests_running")).count();
    assert!(good >= 3, "{good} readings while the other hung");
}

#[test]
fn an_engine_is_asked_the_more_seldom_the_longer_its_page_takes_and_more_often_in_an_incident() {
    let pause = |interval: &str, took_ms, is_incident| {
        let interval = Interval::try_from(interval.to_owned()).expect("a good interval");
        pause(interval, Duration::from_millis(took_ms), is_incident).as_millis()
    };
    assert_eq!([pause("5s", 3, false), pause("5s", 3, true), pause("500ms", 3, true)], [5000, 1000, 500]);
    assert_eq!([pause("5s", 600, false), pause("5s", 600, true)], [12_000, 12_000]);
    assert_eq!(pause("5s", 10_000, false), 60_000);
}

#[tokio::test]
async fn an_incident_is_noticed_between_two_scrapes() {
    let (port, _) = engine(&[PAGE]).await;
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let mut target = target(port);
    target.interval = Interval::try_from("1h".to_owned()).expect("a good interval");
    let incident = Incident::default();
    let config = Engines { discover: false, targets: vec![target] };
    let _running = tokio::spawn(run(config, nowhere(), incident.clone(), sender, stopped));
    let first = [next(&mut samples).await, next(&mut samples).await];
    incident.begin(boot_ns(), Duration::from_secs(60), "a drill");
    // Within the ten seconds that the next one is waited for, and not in an hour.
    assert_eq!([next(&mut samples).await, next(&mut samples).await], first);
}

#[tokio::test]
async fn it_ends_when_nobody_listens() {
    let (port, _) = engine(&[PAGE]).await;
    let (sender, samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let config = Engines { discover: true, targets: vec![target(port)] };
    let running = tokio::spawn(run(config, nowhere(), Incident::default(), sender, stopped));
    drop(samples);
    tokio::time::timeout(Duration::from_secs(5), running).await.expect("it ends").expect("no panic");
}

/// A `/proc` with one `llama-server` that listens on `port`.
#[cfg(target_endian = "little")]
fn fake_proc(port: u16) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    let proc = root.path();
    for folder in ["self/ns", "10/net", "10/fd", "10/ns"] {
        std::fs::create_dir_all(proc.join(folder)).expect("a folder");
    }
    let line = format!("0: 0100007F:{port:04X} 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 77 1 0\n");
    std::fs::write(proc.join("10/net/tcp"), line).expect("a file");
    std::fs::write(proc.join("10/cmdline"), "llama-server\0-m\0/models/tiny.gguf\0").expect("a file");
    symlink("socket:[77]", proc.join("10/fd/3")).expect("a link");
    symlink("net:[1]", proc.join("self/ns/net")).expect("a link");
    symlink("net:[1]", proc.join("10/ns/net")).expect("a link");
    root
}

#[cfg(target_endian = "little")]
#[tokio::test]
async fn a_listening_engine_is_found_named_and_forgotten_when_gone() {
    let (port, _) = engine(&[PAGE]).await;
    let proc = fake_proc(port);
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let _running = tokio::spawn(run_looking_every(
        Duration::from_millis(100),
        Engines::default(),
        places(proc.path()),
        watch::channel(containers::Engines::new()).0,
        Incident::default(),
        sender,
        stopped,
    ));
    let name = format!("llamacpp-{port}");
    assert_eq!(
        next(&mut samples).await,
        format!(
            "engine:{name} requests_running[\"{name}\", \"tiny\"]=2 generation_tokens_total[\"{name}\", \"tiny\"]=10"
        )
    );
    std::fs::remove_dir_all(proc.path().join("10")).expect("the process ends");
    until(&mut samples, &format!("engine:{name} nothing: the engine's process is gone")).await;
    assert_eq!(next(&mut samples).await, format!("scrape:{name} "));
}

#[tokio::test]
async fn an_annotated_pod_is_read_if_it_is_an_engine() {
    let (port, _) = engine(&[PAGE]).await;
    let (strange, _) = engine(&[STRANGE]).await;
    let page = |pod: &str, port: u16| Page {
        pod_uid: pod.to_owned(),
        pod: pod.to_owned(),
        port,
        url: format!("http://127.0.0.1:{port}/metrics"),
    };
    let (_pages, annotated) = watch::channel(vec![page("web", strange), page("chat-0", port)]);
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let places = Places { annotated, ..nowhere() };
    let _running = tokio::spawn(run(Engines::default(), places, Incident::default(), sender, stopped));
    let name = format!("chat-0.llamacpp-{port}");
    let said = next(&mut samples).await;
    assert!(said.starts_with(&format!("engine:{name} requests_running")), "{said}");
}

#[test]
fn who_is_no_engine_is_asked_more_and_more_seldom() {
    let mut refused = Refused::default();
    let news: Vec<bool> = ["connect", "connect", "status"].map(|reason| refused.again(reason, false)).into();
    assert_eq!(news, [true, false, true]);
    assert_eq!(refused.pause, DISCOVERY_INTERVAL * 4);
    for _ in 0..20 {
        refused.again("status", false);
    }
    assert_eq!(refused.pause, LONGEST_PAUSE);
    let mut process = Refused::default();
    for _ in 0..20 {
        process.again("status", true);
    }
    assert_eq!(process.pause, LONGEST_PAUSE_OF_PROCESS);
}

#[cfg(target_endian = "little")]
#[tokio::test]
async fn a_configured_engine_is_not_found_a_second_time() {
    let (port, _) = engine(&[PAGE]).await;
    let proc = fake_proc(port);
    let (sender, mut samples) = mpsc::channel(1);
    let (_stop, stopped) = watch::channel(false);
    let config = Engines { discover: true, targets: vec![target(port)] };
    let _running = tokio::spawn(run(config, places(proc.path()), Incident::default(), sender, stopped));
    for _ in 0..6 {
        let said = next(&mut samples).await;
        assert!(said.starts_with("engine:e ") || said.starts_with("scrape:e "), "{said}");
    }
}
