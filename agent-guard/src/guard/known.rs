//! What is kept of a session: within limits, and as much as there is of one whose file is lost.

use agent_guard_common::subject::Session as Slot;
use ulid::Ulid;

use crate::{
    api::{
        error::{ApiError, Code},
        types::{Mode, Origin, SessionState, Who},
    },
    session::{Session, processes::time_of},
};

/// These texts are in every event of the session.
pub(super) fn check_length(what: &str, text: Option<&str>, most: usize) -> Result<(), ApiError> {
    match text {
        Some(text) if text.len() > most => {
            let detail = format!("the {what} has {} bytes; {most} are the most", text.len());
            Err(ApiError::new(Code::BadRequest, detail))
        }
        _ => Ok(()),
    }
}

/// What is kept of a command: enough to know it again.
pub(super) fn shortened(command: Vec<String>) -> Vec<String> {
    const MOST: usize = 4096;
    let mut left = MOST;
    let mut kept = Vec::new();
    for mut word in command {
        if word.len() > left {
            let end = (0..=left).rev().find(|end| word.is_char_boundary(*end)).unwrap_or_default();
            word.truncate(end);
            word.push_str("...");
            kept.push(word);
            break;
        }
        left -= word.len();
        kept.push(word);
    }
    kept
}

/// A session that the kernel knows and no file does. Nobody's profile has such a name, so its index stays its own.
pub(super) fn nameless(number: u64, at: u32, slot: &Slot, generation: u32) -> Session {
    let index = slot.profile(generation);
    Session {
        id: Ulid::from_parts(time_of(number).ms(), u128::from(number)),
        number,
        slot: at,
        profile: format!("(lost, index {index})"),
        index,
        mode: Mode::Enforce,
        name: None,
        task: None,
        command: Vec::new(),
        cwd: String::new(),
        started: time_of(number),
        ended: None,
        state: if slot.state == Slot::KILLED { SessionState::Killed } else { SessionState::Running },
        started_by: Who::default(),
        root_pid: 0,
        tty: slot.tty,
        binding: slot.binding(generation),
        paths: None,
        origin: Origin::Run,
        enrolled: None,
        standing: 0,
        outer: Vec::new(),
        instead: None,
    }
}
