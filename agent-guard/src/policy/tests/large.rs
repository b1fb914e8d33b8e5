//! A large policy.

use std::{fmt::Write, time::Instant};

use super::*;

/// A hundred thousand rules, some of each kind, below directories that exist and directories that don't.
fn text() -> String {
    let mut text = "version = 1\n".to_owned();
    for number in 0..100_000 {
        let (one, two) = (number / 300, number % 300);
        let (table, path) = match number % 10 {
            0..6 => ("profile.p.files.rule", format!("/srv/d{one}/f{two}")),
            6 => ("critical", format!("/srv/d{one}/f{two}")),
            7 => ("profile.q.files.rule", format!("/new/d{one}/f{two}")),
            8 => ("profile.q.files.rule", format!("**/f{number}")),
            _ => ("profile.p.files.rule", format!("/srv/*/g{number}")),
        };
        let ops = "\"write\", \"create\", \"delete\"";
        writeln!(text, "[[{table}]]\npath = {path:?}\nops = [{ops}]\nverdict = \"deny\"\nreason = \"r\"")
            .unwrap();
    }
    text
}

#[test]
fn a_hundred_thousand_rules() {
    let mut fs = FakeFs::new(&["/srv"]);
    for one in 0..334 {
        fs.add(&format!("/srv/d{one}"));
    }
    for two in 0..300 {
        fs.add(&format!("/srv/d7/f{two}"));
    }
    let text = text();
    assert!(u64::try_from(text.len()).unwrap() < source::MAX_BYTES);
    let start = Instant::now();
    let policy = policy(&text);
    let parsed = start.elapsed();
    let compiled = built(&policy, &fs).unwrap();
    println!("{} bytes: read in {parsed:?}, compiled in {:?}", text.len(), start.elapsed() - parsed);
    assert_eq!(compiled.rules.iter().filter(|rule| rule.kind.is_written()).count(), 100_000);
    assert!(compiled.names.len() > 150_000 && compiled.objects.len() > 200);
    assert_eq!(explained(&compiled, &fs, "write", "/srv/d7/f100/x").1, "rule");
    assert_eq!(explained(&compiled, &fs, "write", "/srv/new/g99999").1, "rule");
    assert_eq!(explained(&compiled, &fs, "write", "/srv/new/g99998").1, "outside");
    assert_eq!(PolicySummary::new(&policy).profiles.len(), 2);
}

#[test]
fn many_networks() {
    let entries: String =
        (0..20_000).map(|at| format!("\"10.{}.{}.0/24:443\",\n", at / 256, at % 256)).collect();
    let policy =
        policy(&format!("version = 1\n[profile.p.network]\nallow = [\"10.0.0.0/8:80\",\n{entries}]\n"));
    let start = Instant::now();
    let compiled = built(&policy, &FakeFs::new(&[])).unwrap();
    println!("networks compiled in {:?}", start.elapsed());
    let connect = |addr: &str, port| {
        explain_connect(&compiled.view(), 0, addr.parse().unwrap(), Service::tcp(port)).unwrap().rule
    };
    assert_eq!(connect("10.78.31.9", 443).unwrap().number, 20_001);
    assert_eq!(connect("10.78.32.9", 443), None);
    assert_eq!(connect("10.78.31.9", 80).unwrap().number, 1);
}
