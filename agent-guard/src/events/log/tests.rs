use std::os::unix::fs::FileExt;

use super::*;
use crate::{
    api::types::{EventQuery, Time},
    events::ocsf::samples,
};

fn folder(name: &str) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("agent-guard-log-{name}-{}", std::process::id()));
    drop(std::fs::remove_dir_all(&dir));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn options(dir: &Path) -> Options {
    Options { journal: None, ..Options::new(dir.join("events.jsonl")) }
}

fn open(dir: &Path) -> EventLog {
    EventLog::open(options(dir), samples::host()).unwrap()
}

fn numbers(dir: &Path) -> Vec<u64> {
    std::fs::read_to_string(dir.join("events.jsonl"))
        .unwrap()
        .lines()
        .map(|line| probe(line.as_bytes()).unwrap().metadata.sequence.unwrap())
        .collect()
}

#[test]
fn numbers_go_on_after_a_restart_and_a_torn_line() {
    let dir = folder("torn");
    let log = open(&dir);
    log.append(&samples::denied());
    log.append(&samples::denied());
    drop(log);
    let path = dir.join("events.jsonl");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let end = file.metadata().unwrap().len();
    file.write_all_at(b"{\"torn\":", end).unwrap();
    let log = open(&dir);
    log.append(&samples::denied());
    assert_eq!(numbers(&dir), [1, 2, 3]);
    assert_eq!(std::fs::read_to_string(dir.join("events.jsonl.torn")).unwrap(), "{\"torn\":\n");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn numbers_go_on_after_a_rotation() {
    let dir = folder("rotate");
    let log = open(&dir);
    log.append(&samples::denied());
    std::fs::rename(dir.join("events.jsonl"), dir.join("events.jsonl.1")).unwrap();
    log.append(&samples::denied());
    log.reopen().unwrap();
    drop(log);
    let log = open(&dir);
    log.append(&samples::denied());
    assert_eq!(numbers(&dir), [3]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn what_never_came_into_the_file_is_told_by_the_next() {
    let dir = folder("unwritten");
    let log = open(&dir);
    log.append(&samples::denied());
    log.tick();
    drop(log);
    // As if more had waited in memory when the daemon ended: beside the log there was no room for the number.
    let path = dir.join("events.jsonl");
    std::fs::remove_file(dir.join("events.jsonl.sequence")).unwrap();
    std::fs::create_dir(dir.join("events.jsonl.sequence.new")).unwrap();
    recover::keep_sequence(&path, Some(&dir), 4).unwrap();
    assert_eq!(recover::kept_sequence(&path, Some(&dir)), 4);
    assert_eq!(recover::kept_sequence(&dir.join("other.jsonl"), Some(&dir)), 0);
    let options = || Options { state: Some(dir.clone()), ..options(&dir) };
    drop(EventLog::open(options(), samples::host()).unwrap());
    assert_eq!(numbers(&dir), [1, 5]);
    let text = std::fs::read_to_string(&path).unwrap();
    let lost = text.lines().last().unwrap();
    assert!(lost.contains("\"events_lost\"") && lost.contains("\"count\":3"), "{lost}");
    drop(EventLog::open(options(), samples::host()).unwrap());
    assert_eq!(numbers(&dir), [1, 5]);
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn other_files_are_left_alone() {
    let dir = folder("other");
    std::fs::write(dir.join("events.jsonl"), "root:x:0:0\n").unwrap();
    let error = EventLog::open(options(&dir), samples::host()).err().unwrap().to_string();
    assert!(error.contains("is this a log of events?"), "{error}");
    assert_eq!(std::fs::read_to_string(dir.join("events.jsonl")).unwrap(), "root:x:0:0\n");
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn a_full_disk_costs_no_event() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let dir = folder("full");
    let log = open(&dir);
    let full = FileSink {
        path: PathBuf::from("/dev/full"),
        file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
        torn: None,
    };
    let line = Arc::new(line_of(&samples::denied(), log.host(), Some(1)));
    let mut queue = Queue::new(Box::new(full), line.json.len() * 2);
    queue.push(Arc::clone(&line));
    queue.push(Arc::clone(&line));
    queue.push(Arc::clone(&line));
    assert_eq!(queue.waiting().len(), 2);
    assert_eq!(queue.loss().unwrap().count, 1);
    assert!(queue.error().is_some());
    log.lock().queues.push(queue);
    assert_eq!(log.degraded().len(), 1);
    log.append(&samples::denied());
    log.tick();
    assert_eq!(numbers(&dir), [1]);
    std::fs::remove_dir_all(&dir).unwrap();
}

async fn collect(mut lines: tokio::sync::mpsc::Receiver<String>, count: usize) -> Vec<u64> {
    let mut out = Vec::new();
    while out.len() < count {
        let Some(line) = lines.recv().await else { break };
        out.push(probe(line.as_bytes()).unwrap().metadata.sequence.unwrap_or(0));
    }
    out
}

#[tokio::test]
async fn the_past_and_then_what_happens() {
    let dir = folder("follow");
    let log = Arc::new(open(&dir));
    for _ in 0..500 {
        log.append(&samples::denied());
    }
    log.append(&samples::session_started());
    let since = Some(Time(0));
    let query = EventQuery { follow: true, since, ..EventQuery::default() };
    let all = log.stream(query).unwrap();
    let denied = EventQuery { verdicts: vec!["deny".to_owned()], ..EventQuery::default() };
    let past = log.stream(denied).unwrap();
    log.append(&samples::denied());
    assert_eq!(collect(all, 502).await, (1..=502).collect::<Vec<_>>());
    assert_eq!(collect(past, 1000).await, (1..=500).collect::<Vec<_>>());
    let later = EventQuery { since: Some(Time(u64::MAX)), ..EventQuery::default() };
    assert!(collect(log.stream(later).unwrap(), 1).await.is_empty());
    std::fs::remove_dir_all(&dir).unwrap();
}

#[tokio::test]
async fn who_is_too_slow_is_told_so() {
    let dir = folder("slow");
    let log = Arc::new(open(&dir));
    let mut lines = log.stream(EventQuery { follow: true, ..EventQuery::default() }).unwrap();
    for _ in 0..10_000 {
        log.append(&samples::denied());
    }
    let first = lines.recv().await.unwrap();
    let value: serde_json::Value = serde_json::from_str(&first).unwrap();
    assert_eq!(value["class_uid"], 6008);
    assert!(value["count"].as_u64().unwrap() > 5000);
    assert!(value["metadata"]["sequence"].is_null());
    std::fs::remove_dir_all(&dir).unwrap();
}
