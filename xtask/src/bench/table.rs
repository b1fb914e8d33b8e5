//! How results look.

use super::rows::{Row, Rows};
use super::targets::{Outcome, Target};

/// All rows: for each operation what it takes bare, then for each case what it takes, how much more that is, and the
/// ratio. Workloads come in a section of their own.
pub(crate) fn table(rows: &Rows) -> String {
    let mut text = String::new();
    for (title, workloads) in [("instructions an operation", false), ("instructions a workload", true)] {
        let here: Vec<&Row> = rows.all.iter().filter(|row| row.is_workload() == workloads).collect();
        if !here.is_empty() {
            text.push_str(&section(rows, title, workloads));
        }
    }
    text
}

fn section(rows: &Rows, title: &str, workloads: bool) -> String {
    let mut lines = vec![[title, "case", "instructions", "bare", "added", "ratio"].map(str::to_owned)];
    let cases = rows.cases();
    for op in rows.ops() {
        let mut name = op;
        let here = cases.iter().filter_map(|case| rows.get(op, case));
        for row in here.filter(|row| row.is_workload() == workloads) {
            lines.push([
                name.to_owned(),
                row.case.clone(),
                grouped(row.instructions),
                grouped(row.bare),
                signed(row.added()),
                ratio(row.instructions, row.bare),
            ]);
            name = "";
        }
    }
    aligned(&lines)
}

/// The targets and the figures behind each.
pub(crate) fn targets(all: &[Target]) -> String {
    let mut lines = Vec::new();
    for target in all {
        let outcome = match target.outcome {
            Outcome::Reached => "reached",
            Outcome::Missed => "MISSED",
            Outcome::Unknown => "?",
        };
        lines.push(format!("{outcome:<8} {}: {}\n", target.what, target.figures));
    }
    let count = |outcome| all.iter().filter(|target| target.outcome == outcome).count();
    let (reached, missed) = (count(Outcome::Reached), count(Outcome::Missed));
    lines.push(format!(
        "{reached} targets reached, {missed} missed, {} not measured\n",
        count(Outcome::Unknown)
    ));
    lines.concat()
}

/// Columns: words to the left, figures to the right.
fn aligned<const N: usize>(lines: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for line in lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for line in lines {
        let mut shown = String::new();
        for (at, (cell, width)) in line.iter().zip(widths).enumerate() {
            let cell = if at < 2 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
            shown.push_str(&cell);
        }
        text.push_str(shown.trim_end());
        text.push('\n');
    }
    text
}

/// With a comma after every three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn signed(number: i64) -> String {
    let sign = if number < 0 { "-" } else { "+" };
    format!("{sign}{}", grouped(number.unsigned_abs()))
}

/// Four digits after the point: a difference of one per cent is much.
fn ratio(of: u64, to: u64) -> String {
    let parts = u128::from(of) * 10_000 + u128::from(to) / 2;
    let Some(parts) = parts.checked_div(u128::from(to)) else { return "-".to_owned() };
    format!("{}.{:04}", parts / 10_000, parts % 10_000)
}

#[cfg(test)]
mod tests {
    use super::super::rows::sample;
    use super::*;

    #[test]
    fn figures() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!((signed(-1500), signed(0)), ("-1,500".to_owned(), "+0".to_owned()));
        assert_eq!(ratio(10_149, 10_000), "1.0149");
        assert_eq!(ratio(2, 3), "0.6667");
        assert_eq!(ratio(1, 0), "-");
    }

    #[test]
    fn an_operation_is_named_once_and_workloads_come_apart() {
        let rows = sample(&[
            ("stat", "bare", 9200, 9200),
            ("workload_git", "bare", 5_000_000, 5_000_000),
            ("open_read", "bare", 11_000, 11_000),
            ("stat", "untagged", 9210, 9200),
        ]);
        let expected = "\
instructions an operation  case      instructions    bare  added   ratio
stat                       bare             9,200   9,200     +0  1.0000
                           untagged         9,210   9,200    +10  1.0011
open_read                  bare            11,000  11,000     +0  1.0000
instructions a workload  case  instructions       bare  added   ratio
workload_git             bare     5,000,000  5,000,000     +0  1.0000
";
        assert_eq!(table(&rows), expected);
    }

    #[test]
    fn targets_are_counted() {
        let target = |outcome| Target { what: "a".into(), outcome, figures: "b".into() };
        let all = [target(Outcome::Reached), target(Outcome::Missed), target(Outcome::Unknown)];
        let text = targets(&all);
        assert!(text.contains("MISSED   a: b\n"), "{text}");
        assert!(text.ends_with("1 targets reached, 1 missed, 1 not measured\n"), "{text}");
    }
}
