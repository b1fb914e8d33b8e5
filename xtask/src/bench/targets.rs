//! What the guard may cost at most, and whether it keeps to that.

use super::rows::{Row, Rows};

/// Most instructions that a process outside of sessions may pay.
const UNTAGGED: u64 = 150;
/// Or this part of the operation, in thousandths, if that is more.
const UNTAGGED_PER_MILLE: u64 = 15;
/// Operations that Landlock judges too: the guard may add half of what Landlock adds.
const OF_LANDLOCK: [&str; 6] =
    ["open_read", "open_write", "create_unlink", "rename", "vfork_exec", "connect"];
/// Operations of the network, and what they may pay outside of sessions and in one, in thousandths.
const NETWORK: [&str; 3] = ["connect", "send", "accept"];
const NETWORK_UNTAGGED_PER_MILLE: u64 = 10;
const NETWORK_PER_MILLE: u64 = 50;
/// Most that write(2) may pay in a session, in thousandths: Landlock doesn't judge it.
const WRITE_PER_MILLE: u64 = 10;
/// Most that the dearest number of rules may cost more than the cheapest, in thousandths.
const FLAT_PER_MILLE: u64 = 100;
/// Operations that no rule of the bench's policy is about: no hook may be attached for them.
const UNJUDGED: [&str; 1] = ["stat"];
/// What figures differ by without a reason, in thousandths.
const NOISE_PER_MILLE: u64 = 2;

/// The case that most targets are about.
const TAGGED: &str = "tagged_d6";

/// Whether a target is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Reached,
    Missed,
    /// Rows that it needs weren't asked for, or can't be measured on this kernel.
    Unknown,
}

/// A target and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// What is asked for.
    pub(crate) what: String,
    /// Whether it is reached.
    pub(crate) outcome: Outcome,
    /// The figures behind that.
    pub(crate) figures: String,
}

/// Judges every operation by every target that it has.
pub(crate) fn judge(rows: &Rows) -> Vec<Target> {
    let ops: Vec<&str> = rows.ops().into_iter().filter(|op| !op.starts_with("workload_")).collect();
    let mut all: Vec<Target> = ops.iter().map(|op| untagged(rows, op)).collect();
    all.extend(ops.iter().filter(|op| OF_LANDLOCK.contains(op)).map(|op| half_of_landlock(rows, op)));
    all.extend(ops.iter().filter(|op| **op == "write_4k").map(|op| write(rows, op)));
    for op in ops.iter().filter(|op| NETWORK.contains(op)) {
        all.push(at_most(rows, op, "untagged", NETWORK_UNTAGGED_PER_MILLE, "outside of sessions"));
        all.push(at_most(rows, op, TAGGED, NETWORK_PER_MILLE, "in a session"));
    }
    all.extend(ops.iter().map(|op| flat(rows, op)));
    all.extend(ops.iter().filter(|op| UNJUDGED.contains(op)).map(|op| unjudged(rows, op)));
    all
}

fn target(what: String, judged: Option<(bool, String)>) -> Target {
    match judged {
        Some((true, figures)) => Target { what, outcome: Outcome::Reached, figures },
        Some((false, figures)) => Target { what, outcome: Outcome::Missed, figures },
        None => Target { what, outcome: Outcome::Unknown, figures: "not measured".to_owned() },
    }
}

fn per_mille(of: u64, thousandths: u64) -> i64 {
    i64::try_from(of.saturating_mul(thousandths) / 1000).unwrap_or(i64::MAX)
}

fn untagged(rows: &Rows, op: &str) -> Target {
    let what = format!("{op}: untagged at most +{UNTAGGED} or +1.5 %");
    target(
        what,
        rows.get(op, "untagged").map(|row| {
            let most =
                per_mille(row.bare, UNTAGGED_PER_MILLE).max(i64::try_from(UNTAGGED).unwrap_or(i64::MAX));
            (row.added() <= most, format!("{:+} of {most:+}", row.added()))
        }),
    )
}

fn half_of_landlock(rows: &Rows, op: &str) -> Target {
    let what = format!("{op}: in a session at most half of what Landlock adds");
    let both = rows.get(op, TAGGED).zip(rows.get(op, "landlock_d6"));
    target(
        what,
        both.map(|(tagged, landlock)| {
            let (ours, theirs) = (tagged.added(), landlock.added());
            (ours.saturating_mul(2) <= theirs, format!("{ours:+}, Landlock {theirs:+}"))
        }),
    )
}

fn write(rows: &Rows, op: &str) -> Target {
    at_most(rows, op, TAGGED, WRITE_PER_MILLE, "in a session")
}

/// That a case pays at most so many thousandths.
fn at_most(rows: &Rows, op: &str, case: &str, thousandths: u64, whose: &str) -> Target {
    let what = format!("{op}: {whose} at most +{} %", thousandths / 10);
    target(
        what,
        rows.get(op, case).map(|row| {
            let most = per_mille(row.bare, thousandths);
            (row.added() <= most, format!("{:+} of {most:+}", row.added()))
        }),
    )
}

/// Both are asked for: that the operation takes the same, and that what it adds isn't hidden behind a large figure is
/// shown beside it.
fn flat(rows: &Rows, op: &str) -> Target {
    let what = format!("{op}: flat within 10 % from 10 to 100,000 rules");
    let cases: Vec<&Row> =
        ["rules_10", "rules_1000", "rules_100000"].iter().filter_map(|case| rows.get(op, case)).collect();
    let figures: Vec<u64> = cases.iter().map(|row| row.instructions).collect();
    let spread = figures.iter().min().zip(figures.iter().max()).filter(|_| cases.len() == 3);
    target(
        what,
        spread.map(|(&least, &most)| {
            let added: Vec<String> = cases.iter().map(|row| format!("{:+}", row.added())).collect();
            let room = per_mille(least, FLAT_PER_MILLE);
            (most.saturating_sub(least) <= u64::try_from(room).unwrap_or_default(), added.join(", "))
        }),
    )
}

fn unjudged(rows: &Rows, op: &str) -> Target {
    let what = format!("{op}: no rule is about it, so it costs nothing");
    let both = rows.get(op, "untagged").zip(rows.get(op, TAGGED));
    target(
        what,
        both.map(|(untagged, tagged)| {
            let most = per_mille(tagged.bare, NOISE_PER_MILLE);
            let figures = format!("untagged {:+}, in a session {:+}", untagged.added(), tagged.added());
            (untagged.added().max(tagged.added()) <= most, figures)
        }),
    )
}

#[cfg(test)]
mod tests {
    use super::super::rows::sample;
    use super::*;

    fn outcome(rows: &[(&str, &str, u64, u64)], what: &str) -> Outcome {
        let all = judge(&sample(rows));
        all.iter().find(|target| target.what.contains(what)).unwrap().outcome
    }

    #[test]
    fn untagged_may_pay_the_greater_of_two() {
        let small = |cost: u64| outcome(&[("stat", "untagged", 1000 + cost, 1000)], "untagged at most");
        assert_eq!((small(150), small(151)), (Outcome::Reached, Outcome::Missed));
        let large = |cost: u64| outcome(&[("fork", "untagged", 100_000 + cost, 100_000)], "untagged at most");
        assert_eq!((large(1500), large(1501)), (Outcome::Reached, Outcome::Missed));
    }

    #[test]
    fn half_of_what_landlock_adds() {
        let with = |ours: u64, theirs: u64| {
            let rows =
                [("rename", TAGGED, 1000 + ours, 1000), ("rename", "landlock_d6", 1000 + theirs, 1000)];
            outcome(&rows, "half")
        };
        assert_eq!((with(50, 100), with(51, 100)), (Outcome::Reached, Outcome::Missed));
        assert_eq!(outcome(&[("rename", TAGGED, 1, 1)], "half"), Outcome::Unknown);
        assert!(judge(&sample(&[("fork", TAGGED, 1, 1)])).iter().all(|target| !target.what.contains("half")));
    }

    #[test]
    fn write_may_pay_a_hundredth() {
        let with = |cost: u64| outcome(&[("write_4k", TAGGED, 5000 + cost, 5000)], "+1 %");
        assert_eq!((with(50), with(51)), (Outcome::Reached, Outcome::Missed));
    }

    #[test]
    fn the_network_may_pay_a_hundredth_and_a_twentieth() {
        let with = |case, cost: u64, what: &str| outcome(&[("send", case, 10_000 + cost, 10_000)], what);
        let (outside, inside) = ("outside of sessions at most +1 %", "in a session at most +5 %");
        assert_eq!(
            (with("untagged", 100, outside), with("untagged", 101, outside)),
            (Outcome::Reached, Outcome::Missed)
        );
        assert_eq!(
            (with(TAGGED, 500, inside), with(TAGGED, 501, inside)),
            (Outcome::Reached, Outcome::Missed)
        );
    }

    #[test]
    fn flat_over_all_numbers_of_rules() {
        let with = |middle: u64| {
            let rows = [
                ("rename", "rules_10", 1000, 900),
                ("rename", "rules_1000", middle, 900),
                ("rename", "rules_100000", 1000, 900),
            ];
            outcome(&rows, "flat")
        };
        assert_eq!((with(1100), with(1101)), (Outcome::Reached, Outcome::Missed));
        assert_eq!(outcome(&[("rename", "rules_10", 1, 1)], "flat"), Outcome::Unknown);
    }

    #[test]
    fn what_no_rule_is_about() {
        let with = |cost: u64| {
            outcome(
                &[("stat", "untagged", 10_000, 10_000), ("stat", TAGGED, 10_000 + cost, 10_000)],
                "no rule",
            )
        };
        assert_eq!((with(20), with(21)), (Outcome::Reached, Outcome::Missed));
    }

    #[test]
    fn workloads_have_no_targets() {
        assert!(judge(&sample(&[("workload_git", "untagged", 900, 100)])).is_empty());
    }
}
