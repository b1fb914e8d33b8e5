//! Random cases: tables and definition must give the same answers.

use std::{collections::BTreeMap, path::Path};

use crate::policy::case::{Case, KEPT};

#[test]
fn what_has_failed_once() {
    for (name, text) in KEPT {
        let case: Case = text.parse().unwrap();
        let counts = case.run().unwrap_or_else(|why| panic!("{name}: {why}\n{case}"));
        assert!(!counts.is_empty(), "{name} asks nothing");
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
    for (source, least) in
        [("critical", count), ("rule", count), ("scope", count), ("outside", count), ("network", count / 4)]
    {
        assert!(counts.get(source).is_some_and(|&asked| asked > least), "{counts:?}");
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
