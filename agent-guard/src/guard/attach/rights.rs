//! Whether a running tree has something open that its profile wouldn't let it open.

use std::collections::HashSet;

use agent_guard_common::attach::Member;

use super::{Refusal, refused, watch::Watch};
use crate::{
    guard::{Guard, sessions::internal},
    session::Session,
    sys::judge::Judge,
};

/// Findings that are told, at most.
const TOLD: usize = 8;
/// Processes that are looked at at once, at most.
const AT_ONCE: usize = 20_000;

/// The processes among tasks, each once, that have something left to run.
pub(super) fn processes(members: &[Member]) -> Vec<u32> {
    let mut seen = HashSet::new();
    let living = members.iter().filter(|member| member.state != Member::ENDED);
    living.filter(|member| seen.insert(member.tgid)).map(|member| member.tgid).collect()
}

impl Guard {
    /// Refuses if somebody of the tree has something open that the session couldn't open: its own rules as the kernel judges
    /// them.
    pub(super) fn check_rights(
        &self,
        watch: &Watch<'_>,
        session: &Session,
        members: &[Member],
    ) -> Result<(), Refusal> {
        let judge = Judge::start().map_err(internal)?;
        let _stand_in = self.stand_in(session, judge.process())?;
        let mut looked_at = HashSet::new();
        let mut left = processes(members);
        // Once more for those that were made meanwhile. What comes later was made by somebody who was looked at.
        for _ in 0..2 {
            left.retain(|pid| looked_at.insert(*pid));
            let findings = look(&judge, &left)?;
            if !findings.is_empty() {
                return refused(told(&findings, &session.profile));
            }
            left = processes(&watch.members()?);
        }
        Ok(())
    }
}

fn look(judge: &Judge, pids: &[u32]) -> Result<Vec<String>, Refusal> {
    if pids.len() > AT_ONCE {
        return refused(format!("the tree has {} processes, more than can be looked at", pids.len()));
    }
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    let said = judge.look(&pids).map_err(internal)?;
    serde_json::from_slice(&said).map_err(internal)
}

fn told(findings: &[String], profile: &str) -> String {
    let first: Vec<_> = findings.iter().take(TOLD).map(String::as_str).collect();
    let more = match findings.len().saturating_sub(TOLD) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!(
        "{}{more}. Profile {profile} wouldn't let a session have that: close it, or allow it in the policy",
        first.join("; ")
    )
}
