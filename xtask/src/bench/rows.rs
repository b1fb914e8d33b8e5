//! What was measured.

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// An operation in a case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Row {
    /// The operation; `workload_NAME` for a whole workload.
    pub(crate) op: String,
    /// In which circumstances.
    pub(crate) case: String,
    /// What it takes, once.
    pub(crate) instructions: u64,
    /// What it takes where nothing judges, at the same depth.
    pub(crate) bare: u64,
}

impl Row {
    /// Instructions more than bare; less than none if it takes fewer.
    pub(crate) fn added(&self) -> i64 {
        let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
        signed(self.instructions).saturating_sub(signed(self.bare))
    }

    /// Whether it is a workload and no single operation.
    pub(crate) fn is_workload(&self) -> bool {
        self.op.starts_with("workload_")
    }
}

/// All rows, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) all: Vec<Row>,
}

impl Rows {
    /// Reads one JSON object a line.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut rows = Self::default();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let row: Row = serde_json::from_str(line).with_context(|| format!("the guest said: {line}"))?;
            if row.bare == 0 || row.instructions == 0 {
                bail!("the guest measured nothing: {line}");
            }
            if rows.get(&row.op, &row.case).is_some() {
                bail!("the guest measured twice: {line}");
            }
            rows.all.push(row);
        }
        Ok(rows)
    }

    /// The row of an operation in a case.
    pub(crate) fn get(&self, op: &str, case: &str) -> Option<&Row> {
        self.all.iter().find(|row| row.op == op && row.case == case)
    }

    /// The operations, each once, in order.
    pub(crate) fn ops(&self) -> Vec<&str> {
        distinct(self.all.iter().map(|row| row.op.as_str()))
    }

    /// The cases, each once, in order.
    pub(crate) fn cases(&self) -> Vec<&str> {
        distinct(self.all.iter().map(|row| row.case.as_str()))
    }
}

fn distinct<'r>(names: impl Iterator<Item = &'r str>) -> Vec<&'r str> {
    let mut all = Vec::new();
    for name in names {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    all
}

#[cfg(test)]
pub(super) fn sample(rows: &[(&str, &str, u64, u64)]) -> Rows {
    let all = rows.iter().map(|&(op, case, instructions, bare)| Row {
        op: op.to_owned(),
        case: case.to_owned(),
        instructions,
        bare,
    });
    Rows { all: all.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_written_alike() {
        let line = r#"{"op":"stat","case":"bare","instructions":9200,"bare":9200}"#;
        let rows = Rows::parse(&format!("{line}\n\n")).unwrap();
        assert_eq!(serde_json::to_string(&rows.all[0]).unwrap(), line);
        assert_eq!((rows.ops(), rows.cases()), (vec!["stat"], vec!["bare"]));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(Rows::parse("hello").is_err());
        assert!(Rows::parse(r#"{"op":"stat","case":"bare","instructions":0,"bare":1}"#).is_err());
        let twice = r#"{"op":"stat","case":"bare","instructions":1,"bare":1}"#;
        assert!(Rows::parse(&format!("{twice}\n{twice}")).is_err());
    }

    #[test]
    fn added() {
        let rows = sample(&[
            ("stat", "untagged", 110, 100),
            ("stat", "tagged_d6", 90, 100),
            ("workload_git", "bare", 1, 1),
        ]);
        assert_eq!(rows.all.iter().map(Row::added).collect::<Vec<_>>(), [10, -10, 0]);
        assert_eq!(rows.all.iter().map(Row::is_workload).collect::<Vec<_>>(), [false, false, true]);
    }
}
