//! What the end of a log file says: the last number, and whether the last line is torn.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// How far back the last number is looked for.
const WINDOW: u64 = 16 << 20;

/// The few fields of an event that the log itself reads.
#[derive(Deserialize, Debug)]
pub(super) struct Probe {
    pub(super) time: u64,
    pub(super) metadata: ProbeMetadata,
    #[serde(default)]
    pub(super) unmapped: ProbeUnmapped,
}

#[derive(Deserialize, Debug)]
pub(super) struct ProbeMetadata {
    pub(super) sequence: Option<u64>,
    #[serde(default)]
    pub(super) logged_time: u64,
}

#[derive(Deserialize, Debug, Default)]
pub(super) struct ProbeUnmapped {
    #[serde(default)]
    pub(super) agent_guard: ProbeFields,
}

#[derive(Deserialize, Debug, Default)]
pub(super) struct ProbeFields {
    pub(super) session: Option<String>,
    pub(super) verdict: Option<String>,
}

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Recovered {
    /// The last number; 0 for an empty file.
    pub(super) sequence: u64,
    /// When that happened, milliseconds since the epoch.
    pub(super) time: u64,
    /// Length up to the last complete line.
    pub(super) length: u64,
    /// Bytes of a torn last line, which were moved to the side file.
    pub(super) torn: u64,
}

/// The path with something added to its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Reads the end of a log file, moves a torn last line to `<path>.torn` and cuts it off.
///
/// # Errors
///
/// If the file can't be read or cut, or its end has no event at all: then it isn't a log.
pub(super) fn recover(file: &mut File, path: &Path) -> io::Result<Recovered> {
    let size = file.metadata()?.len();
    let start = size.saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(start))?;
    let mut end = Vec::new();
    file.take(WINDOW).read_to_end(&mut end)?;
    let complete = end.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    if complete == 0 && start > 0 {
        return Err(io::Error::other("its last line has no end; is this a log of events?"));
    }
    let (lines, torn) = end.split_at_checked(complete).unwrap_or((&end, &[]));
    let (sequence, time) = last_number(lines, path)?;
    let length = start + u64::try_from(complete).unwrap_or(u64::MAX);
    if !torn.is_empty() {
        keep(torn, path)?;
        file.set_len(length)?;
        file.sync_data()?;
    }
    file.seek(SeekFrom::End(0))?;
    Ok(Recovered { sequence, time, length, torn: size - length })
}

/// The last event's number and time.
fn last_number(lines: &[u8], path: &Path) -> io::Result<(u64, u64)> {
    let mut seen = 0_usize;
    for line in lines.split(|&byte| byte == b'\n').rev().filter(|line| !line.is_empty()) {
        seen += 1;
        if let Ok(Probe { time, metadata: ProbeMetadata { sequence: Some(sequence), .. }, .. }) =
            serde_json::from_slice(line)
        {
            return Ok((sequence, time));
        }
        tracing::warn!(path = %path.display(), "a line near the end of the log is not an event");
    }
    if seen == 0 {
        return Ok((0, 0));
    }
    Err(io::Error::other("its end has no event with a number; is this a log of events?"))
}

fn keep(torn: &[u8], path: &Path) -> io::Result<()> {
    let side = beside(path, ".torn");
    let mut out = OpenOptions::new().append(true).create(true).mode(0o640).open(side)?;
    out.write_all(torn)?;
    out.write_all(b"\n")?;
    out.sync_data()
}

/// File with the number below the state directory, for when there is no room beside the log.
const STATE: &str = "sequence";

/// Reads the number that was kept: for the time when the log was just rotated, and to know what never came to be in it.
pub(super) fn kept_sequence(path: &Path, state: Option<&Path>) -> u64 {
    let beside = std::fs::read_to_string(beside(path, ".sequence")).ok();
    let beside = beside.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let state = state.and_then(|state| std::fs::read_to_string(state.join(STATE)).ok());
    // The directory doesn't belong to one log alone.
    let state = state.as_deref().and_then(|text| text.split_once('\n'));
    let state = state.filter(|(_, log)| Path::new(log) == path).and_then(|(number, _)| number.parse().ok());
    beside.max(state.unwrap_or(0))
}

/// Keeps the last number in `<path>.sequence`, in one step; where that has no room, in the state directory.
///
/// # Errors
///
/// If it can't be written to either.
pub(super) fn keep_sequence(path: &Path, state: Option<&Path>, sequence: u64) -> io::Result<()> {
    let kept = replace(&beside(path, ".sequence"), &format!("{sequence}\n"));
    match (kept, state) {
        (Err(_), Some(state)) => replace(&state.join(STATE), &format!("{sequence}\n{}", path.display())),
        (kept, _) => kept,
    }
}

/// Gives a file other contents: all of them or none.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let new = beside(path, ".new");
    std::fs::write(&new, text)?;
    std::fs::rename(new, path)
}
