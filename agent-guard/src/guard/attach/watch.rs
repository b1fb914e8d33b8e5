//! The kernel side of an attach: watch the tree, list it, tag it.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use agent_guard_common::{
    attach::{Attaching, Member, Progress, Relative},
    subject::{Session as Slot, Tag},
};

use super::{Refusal, refused};
use crate::{
    guard::{Guard, lock, sessions::internal},
    kernel::tree::Tree,
    session::{Session, proc},
    sys,
};

/// How long tasks that were ending when the watch began may take to end.
const ENDING_LIMIT: Duration = Duration::from_secs(10);
/// How long tagging may take.
const TAG_LIMIT: Duration = Duration::from_secs(20);
/// Passes that must find nobody new, one after another.
const QUIET: u32 = 2;

/// A tree that is watched. The watch ends when this is forgotten.
pub(super) struct Watch<'a> {
    guard: &'a Guard,
    tree: Tree,
    /// From when on nobody is missed, nanoseconds since boot.
    pub(super) since: u64,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Err(error) = lock(&self.guard.maps).detach() {
            // Makes forks and exits a little dearer, until the next attach.
            tracing::error!(%error, "the kernel side goes on watching a tree");
        }
    }
}

impl<'a> Watch<'a> {
    /// Begins to watch a process and all that it will have started from then on.
    pub(super) fn begin(guard: &'a Guard, root: Relative) -> Result<Self, Refusal> {
        let tree = Tree::new(&guard.attached.tree()).map_err(internal)?;
        let mut watch = Self { guard, tree, since: 0 };
        {
            let mut maps = lock(&guard.maps);
            maps.detach().map_err(internal)?;
            maps.relate(&root).map_err(internal)?;
            maps.set_attaching(&Attaching { phase: Attaching::WATCH, ..Attaching::default() })
                .map_err(internal)?;
        }
        // Whose program that notes a task's children had run before, or was running, has begun to end by now.
        if let Err(error) = sys::barrier() {
            tracing::debug!(%error, "no barrier; a pause will do");
            std::thread::sleep(Duration::from_millis(100));
        }
        watch.let_end()?;
        watch.since = proc::boot_clock();
        Ok(watch)
    }

    /// Waits for all tasks that were ending when the watch began: nobody has noted what they leave behind.
    fn let_end(&self) -> Result<(), Refusal> {
        let ending = |members: Vec<Member>| -> HashSet<(u32, u32, u64)> {
            let ends = |member: &Member| matches!(member.state, Member::ENDING | Member::ENDING_OUTSIDE);
            members.iter().filter(|member| ends(member)).map(|one| (one.tgid, one.tid, one.start)).collect()
        };
        let limit = Instant::now() + ENDING_LIMIT;
        let mut first = ending(self.tree.pass().map_err(internal)?);
        while !first.is_empty() {
            if Instant::now() > limit {
                let left: Vec<_> = first.iter().map(|(_, tid, _)| tid.to_string()).collect();
                return refused(format!(
                    "tasks {} are ending and don't come to an end, so nobody can say what they leave behind",
                    left.join(", ")
                ));
            }
            std::thread::sleep(Duration::from_millis(2));
            let still = ending(self.tree.pass().map_err(internal)?);
            first.retain(|task| still.contains(task));
        }
        Ok(())
    }

    /// The tree's tasks as they are now.
    pub(super) fn members(&self) -> Result<Vec<Member>, Refusal> {
        let mut members = self.tree.pass().map_err(internal)?;
        members.retain(|member| member.state != Member::ENDING_OUTSIDE);
        self.sure()?;
        Ok(members)
    }

    /// Whether the kernel side has noted all that it had to.
    fn sure(&self) -> Result<Progress, Refusal> {
        let progress = lock(&self.guard.maps).progress().map_err(internal)?;
        if progress.lost != 0 {
            return refused("the tree changes faster than the kernel side can note it; try again".to_owned());
        }
        Ok(progress)
    }

    /// Tags every task of the tree, and whoever it makes; returns all of them.
    pub(super) fn tag(&self, session: &Session) -> Result<Vec<Member>, Refusal> {
        lock(&self.guard.maps)
            .set_attaching(&Attaching { session: session.number, slot: session.slot, phase: Attaching::TAG })
            .map_err(internal)?;
        if let Err(error) = sys::barrier() {
            tracing::debug!(%error, "no barrier");
        }
        let limit = Instant::now() + TAG_LIMIT;
        let (mut quiet, mut before) = (0, self.sure()?.tagged);
        loop {
            let members = self.members()?;
            for member in &members {
                if member.state == Member::NOT_TAGGED {
                    return refused(format!(
                        "there was no memory for the tag of thread {} of process {}",
                        member.tid, member.tgid
                    ));
                }
                if member.session != session.number {
                    return refused(format!(
                        "process {} has joined another session meanwhile: {}",
                        member.tgid,
                        self.guard.name_of(member.session)
                    ));
                }
            }
            let tagged = self.sure()?.tagged;
            quiet = if tagged == before { quiet + 1 } else { 0 };
            before = tagged;
            if quiet >= QUIET {
                return Ok(members);
            }
            if Instant::now() > limit {
                return refused("the tree makes processes faster than they can be tagged".to_owned());
            }
        }
    }
}

impl Guard {
    /// A session by its number, for people. Takes no lock on the state: who asks may hold it.
    fn name_of(&self, number: u64) -> String {
        let (sessions, _) = self.store.read().unwrap_or_default();
        let known = sessions.iter().find(|session| session.number == number);
        known.map_or_else(|| format!("number {number}"), |session| session.id.to_string())
    }

    /// Gives a process of ours the tag of a session that is judged as another one, but isn't it: whoever is in that one can
    /// do nothing to it.
    pub(in crate::guard) fn stand_in(
        &self,
        session: &Session,
        process: std::os::fd::BorrowedFd<'_>,
    ) -> Result<StandIn<'_>, Refusal> {
        let mut maps = lock(&self.maps);
        let taken = maps.sessions().map_err(internal)?;
        let free = |slot: &u32| !taken.iter().any(|(other, _)| other == slot);
        let Some(slot) = (1..agent_guard_common::subject::MAX_SESSIONS).find(free) else {
            return refused("there is no room for another session".to_owned());
        };
        let number = taken.iter().map(|(_, slot)| slot.id).chain([session.number, proc::boot_clock()]).max();
        let number = number.unwrap_or_default().saturating_add(1);
        let judged = Slot { id: number, ..crate::guard::sessions::slot_of(session, Slot::LIVE) };
        maps.set_session(slot, &judged).map_err(internal)?;
        let stand_in = StandIn { guard: self, slot };
        let tagged = maps.tag(process, &Tag { session: number, slot, ..Tag::default() });
        drop(maps);
        tagged.map_err(internal)?;
        Ok(stand_in)
    }
}

/// A slot that is given back when this is forgotten.
pub(in crate::guard) struct StandIn<'a> {
    guard: &'a Guard,
    slot: u32,
}

impl Drop for StandIn<'_> {
    fn drop(&mut self) {
        if let Err(error) = lock(&self.guard.maps).set_session(self.slot, &Slot::default()) {
            tracing::error!(%error, "a slot stays taken");
        }
    }
}

/// Whether somebody of the tree is tagged already; the session, for people.
pub(super) fn tagged(guard: &Guard, members: &[Member]) -> Option<(u32, String)> {
    let found = members.iter().find(|member| member.session != 0)?;
    Some((found.tgid, guard.name_of(found.session)))
}
