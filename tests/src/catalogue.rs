//! The catalogue of bypasses must be true: what it calls stopped is proved by a scenario that exists.

use std::{collections::BTreeSet, fs, path::Path};

/// Classes of attacks, at least.
const CLASSES: u32 = 25;
/// What the columns are called.
const HEAD: [&str; 5] = ["no.", "attack", "state", "proof", "what remains"];

/// A row of the catalogue.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    /// Class and letter, such as `8c`.
    number: String,
    state: String,
    /// Names of scenarios.
    proofs: Vec<String>,
    remains: String,
}

impl Row {
    /// Reads a line of the table; none for other lines.
    fn read(line: &str) -> Option<Self> {
        let line = line.trim().strip_prefix('|')?.strip_suffix('|')?;
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        if cells == HEAD || cells.iter().all(|cell| cell.chars().all(|c| c == '-')) {
            return None;
        }
        let [number, attack, state, proof, remains] = cells.as_slice() else {
            panic!("not {} cells: {line}", HEAD.len());
        };
        assert!(!attack.is_empty(), "{number}: no attack");
        let proofs = proof.split_whitespace().map(|word| {
            let name = word.trim_end_matches(',').strip_prefix('`').and_then(|name| name.strip_suffix('`'));
            name.unwrap_or_else(|| panic!("{number}: the proof {word:?} is no `name`")).to_owned()
        });
        Some(Self {
            number: (*number).to_owned(),
            state: (*state).to_owned(),
            proofs: proofs.collect(),
            remains: (*remains).to_owned(),
        })
    }

    /// The number without its letter.
    fn class(&self) -> Option<u32> {
        self.number.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok()
    }

    /// What is wrong with it.
    fn mistake(&self, scenarios: &BTreeSet<String>) -> Option<String> {
        if let Some(name) = self.proofs.iter().find(|name| !scenarios.contains(*name)) {
            return Some(format!("there is no scenario {name}"));
        }
        match self.state.as_str() {
            "stopped" if self.proofs.is_empty() => Some("stopped, but no scenario proves it".to_owned()),
            "stopped" => None,
            "partly" | "not stopped" | "not applicable" if self.remains.is_empty() => {
                Some("it doesn't say what remains".to_owned())
            }
            "not stopped" | "not applicable" if !self.proofs.is_empty() => {
                Some("a proof of something that isn't stopped".to_owned())
            }
            "partly" | "not stopped" | "not applicable" => None,
            other => Some(format!("there is no state {other:?}")),
        }
    }
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Names of the scenarios in a source file, as they are registered.
fn names(source: &str) -> impl Iterator<Item = String> {
    let calls = ["Scenario::direct(", "Scenario::systemd("];
    calls.into_iter().flat_map(|call| source.split(call).skip(1)).filter_map(|rest| {
        let (name, _) = rest.trim_start().strip_prefix('"')?.split_once('"')?;
        Some(name.to_owned())
    })
}

/// All scenarios of the families that `main.rs` lists.
fn scenarios() -> BTreeSet<String> {
    let main = read("src/bin/scenarios/main.rs");
    let families = main.lines().filter_map(|line| line.trim().strip_suffix("::SCENARIOS,"));
    families
        .flat_map(|family| {
            // A family is a file, or a folder with one that is called `mod.rs`.
            let folder = format!("src/bin/scenarios/{family}/mod.rs");
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(&folder);
            let source = if file.is_file() { folder } else { format!("src/bin/scenarios/{family}.rs") };
            names(&read(&source)).collect::<Vec<_>>()
        })
        .collect()
}

fn rows() -> Vec<Row> {
    read("../docs/bypasses.md").lines().filter_map(Row::read).collect()
}

#[test]
fn every_row_is_true() {
    let scenarios = scenarios();
    assert!(scenarios.len() > 40, "only {} scenarios were found: {scenarios:?}", scenarios.len());
    let mistakes: Vec<String> = rows()
        .iter()
        .filter_map(|row| Some(format!("{}: {}", row.number, row.mistake(&scenarios)?)))
        .collect();
    assert!(mistakes.is_empty(), "docs/bypasses.md:\n{}", mistakes.join("\n"));
}

#[test]
fn every_class_is_there_once() {
    let rows = rows();
    let numbers: BTreeSet<&str> = rows.iter().map(|row| row.number.as_str()).collect();
    assert_eq!(numbers.len(), rows.len(), "a number comes twice");
    let classes: BTreeSet<u32> = rows
        .iter()
        .map(|row| row.class().unwrap_or_else(|| panic!("{:?} is no number", row.number)))
        .collect();
    let missing: Vec<u32> = (1..=CLASSES).filter(|class| !classes.contains(class)).collect();
    assert!(missing.is_empty(), "classes without a row: {missing:?}");
}

#[test]
fn mistakes_are_found() {
    let scenarios = BTreeSet::from(["files_denied".to_owned()]);
    let mistake = |line: &str| Row::read(line).unwrap().mistake(&scenarios);
    assert_eq!(mistake("| 5a | links | stopped | `files_denied` | |"), None);
    assert_eq!(mistake("| 5b | links | partly | `files_denied` | some |"), None);
    assert!(mistake("| 5a | links | stopped | | |").unwrap().contains("no scenario proves it"));
    assert!(mistake("| 5a | links | stopped | `files_denied`, `gone` | |").unwrap().contains("gone"));
    assert!(mistake("| 5a | links | not stopped | | |").unwrap().contains("what remains"));
    assert!(mistake("| 5a | links | stoped | `files_denied` | |").unwrap().contains("stoped"));
    assert_eq!(Row::read("| no. | attack | state | proof | what remains |"), None);
    assert_eq!(Row::read("|---|---|---|---|---|"), None);
    let source =
        "Scenario::direct(\n        \"one\",\n \"about\", f), Scenario::systemd(\"two\", \"about\", g)";
    assert_eq!(names(source).collect::<Vec<_>>(), ["one", "two"]);
}
