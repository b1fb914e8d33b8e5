//! Random cases: tables and definition must give the same answers.

use std::{collections::BTreeMap, path::Path};

use crate::policy::case::Case;

/// What has failed once.
const KEPT: [&str; 2] = [
    // A root that another mount hides.
    "mkdir /w
    mkdir /w/a
    mount 3 /w/a
    mkdir /w/a/b
    rule deny execute,write,delete /w/*
    load
    bind /w/a/b /w/a
    ask write /w/a",
    // A root that no mount shows.
    "mkdir /w
    mkdir /w/b
    mkdir /w/c
    mount 8 /w/c
    mkdir /w/c/d
    mkdir /w/c/d/e
    critical kill write,delete,rename /w/*
    load
    bind /w/c/d/e /w/b
    unmount /w/c
    ask write /w/b",
];

#[test]
fn what_has_failed_once() {
    for text in KEPT {
        let case: Case = text.parse().unwrap();
        assert!(case.run().is_ok(), "{:?}\n{case}", case.run());
    }
}

#[test]
fn random() {
    let count = std::env::var("AGENT_GUARD_CASES").map_or(3000, |count| count.parse::<u64>().unwrap());
    let mut counts = BTreeMap::new();
    for seed in 0..count {
        let case = Case::random(seed, Path::new("/w"));
        let Ok(more) = case.run() else {
            let small = case.smallest(|case| case.run().is_err());
            panic!("seed {seed}:\n{small}\n{}\n{:?}", small.policy(), small.run());
        };
        for (source, more) in more {
            *counts.entry(source).or_insert(0) += u64::from(more);
        }
    }
    // All of it comes up.
    for source in ["critical", "rule", "scope", "outside"] {
        assert!(counts.get(source).is_some_and(|&asked| asked > count), "{counts:?}");
    }
}

#[test]
fn text_and_back() {
    for seed in 0..100 {
        let case = Case::random(seed, Path::new("/w/x"));
        assert_eq!(case.to_string().parse(), Ok(case));
    }
    for bad in ["", "x", "mkdir", "mount a /b", "ask fly /a", "rule never write /a"] {
        assert!(bad.parse::<super::super::case::Line>().is_err(), "{bad:?}");
    }
}
