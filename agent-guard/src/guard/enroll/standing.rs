//! Users and control groups that are enrolled: each has a session that is there all the time. The kernel side puts into it
//! whoever executes a program outside of sessions, and needs no daemon for that.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use agent_guard_common::{
    ObjectKey,
    enroll::{MAX_CGROUPS, Missed, Seat},
    subject::Guard as Told,
};
use ulid::Ulid;

use super::super::{Guard, State, lock, sessions::who};
use crate::{
    api::{
        error::ApiError,
        types::{Origin, SessionState, Time},
    },
    kernel,
    policy::{By, Compiled, Diagnostic, Filesystem as _, Policy},
    session::{Session, proc},
    sys,
};

/// Where the unified hierarchy is, in either arrangement of systemd's.
const HIERARCHIES: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
/// The program that the service manager executes for each service (`EXECUTOR` in systemd's meson.build).
const EXECUTORS: [&str; 2] = ["/usr/lib/systemd/systemd-executor", "/lib/systemd/systemd-executor"];
/// How often control groups are looked at that could not be noted.
const GROUPS_EVERY: Duration = Duration::from_secs(10);
/// Control groups that are looked at, at most.
const MAX_GROUPS: usize = 200_000;

/// Somebody who needs a standing session.
#[derive(Clone, Debug)]
struct Wanted {
    key: String,
    number: u32,
    profile: String,
    cwd: PathBuf,
    uid: u32,
    rule: u32,
    user: bool,
}

/// What can't be enrolled on this host.
pub(super) fn mistakes(policy: &Policy) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    for (entry, target) in policy.enrolled() {
        let wrong = match entry.by {
            By::User => match sys::user_id(&target.text) {
                Some(0) => Some(("root can't be enrolled", "enroll the unit or the program instead")),
                Some(_) => None,
                None => Some(("there is no such user", "make the user first, or write the number")),
            },
            By::Unit | By::Cgroup if hierarchy().is_none() => Some((
                "this host has no unified control groups",
                "boot with systemd.unified_cgroup_hierarchy=1",
            )),
            _ => None,
        };
        if let Some((what, help)) = wrong {
            mistakes.push(Diagnostic::error(&target.origin, format!("`{}`: {what}", target.text)).help(help));
        }
    }
    mistakes
}

/// More control groups than can be noted, of those that are there.
pub(super) fn too_many(policy: &Policy, compiled: &Compiled) -> Result<(), String> {
    let Some(root) = hierarchy().filter(|_| policy.enrolls_groups()) else { return Ok(()) };
    let found = groups(&root, compiled).map_err(|error| format!("{}: {error}", root.display()))?;
    let most = usize::try_from(MAX_CGROUPS).unwrap_or(usize::MAX);
    if found.len() > most {
        return Err(format!("it enrolls {} control groups that are there, and {most} can be", found.len()));
    }
    Ok(())
}

/// The root of the unified hierarchy.
fn hierarchy() -> Option<PathBuf> {
    const CGROUP2_SUPER_MAGIC: u64 = 0x6367_7270;
    let unified = |path: &&&str| {
        rustix::fs::statfs(**path).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2_SUPER_MAGIC))
    };
    HIERARCHIES.iter().find(unified).map(PathBuf::from)
}

/// The control group of a process in the unified hierarchy.
fn group_of(pid: &str) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

impl Guard {
    /// The numbers that standing sessions keep under the next policy: of those that still run.
    pub(in crate::guard) fn standing_numbers(state: &State) -> BTreeMap<String, u32> {
        let running: HashSet<&str> =
            state.running().filter_map(|session| session.enrolled.as_deref()).collect();
        let kept = state.enrolled.standing.iter().filter(|(key, _)| running.contains(key.as_str()));
        let adopted =
            state.running().filter_map(|session| Some((session.enrolled.clone()?, session.standing)));
        adopted.chain(kept.map(|(key, number)| (key.clone(), *number))).collect()
    }

    /// Has a session for everybody whom the policy in force enrolls, and tells the kernel side who belongs to it.
    pub(super) fn stand(&self, state: &mut State) {
        let wanted = wanted(state);
        state.enrolled.standing = wanted.iter().map(|one| (one.key.clone(), one.number)).collect();
        // Whom nobody enrolls any more first, so that a number that is given again isn't theirs.
        if let Err(error) = self.forget_users(&wanted) {
            state.enrolled.problem(format!("who is enrolled no more: {error}"));
        }
        for one in &wanted {
            if let Err(why) = self.stand_one(state, one) {
                state
                    .enrolled
                    .problem(format!("`{}` has no session, so nothing is executed there: {why}", one.key));
            }
        }
        if let Err(error) = self.tell_executor() {
            state.enrolled.problem(format!("units may not start: {error}"));
        }
        if let Err(error) = self.enroll_users(&wanted) {
            state.enrolled.problem(format!("users aren't enrolled: {error}"));
        }
        if let Err(error) = self.enroll_groups(state) {
            state.enrolled.problem(format!("control groups aren't enrolled: {error}"));
        }
    }

    /// Makes standing sessions anew that have ended.
    pub(super) fn stand_again(&self, state: &mut State) {
        if state.enrolled.standing.is_empty() {
            return;
        }
        let living: BTreeSet<String> = state
            .running()
            .filter(|session| session.state == SessionState::Running)
            .filter_map(|session| session.enrolled.clone())
            .collect();
        if state.enrolled.standing.keys().all(|key| living.contains(key)) {
            return;
        }
        let missing: Vec<_> = wanted(state).into_iter().filter(|one| !living.contains(&one.key)).collect();
        for name in vanished(state) {
            state.enrolled.problem(format!(
                "`{name}` is enrolled and is no user of this host any more: make the user again, or change the policy"
            ));
        }
        for one in missing {
            // Whoever is left of the one that was killed ends first.
            let killed = state.running().any(|session| session.enrolled.as_deref() == Some(&one.key));
            if killed {
                continue;
            }
            match self.stand_one(state, &one) {
                Ok(()) => tracing::info!(who = one.key, "the standing session has ended; there is a new one"),
                Err(why) => tracing::error!(%why, who = one.key, "there is no session"),
            }
        }
    }

    /// One standing session: the one that there is, if it has the profile that the policy says, or a new one.
    fn stand_one(&self, state: &mut State, one: &Wanted) -> Result<(), ApiError> {
        let there = state.running().find(|session| {
            session.enrolled.as_deref() == Some(&one.key)
                && session.state == SessionState::Running
                && session.profile == one.profile
                && (session.paths.is_none() || Path::new(&session.cwd) == one.cwd)
        });
        let seat = there.map(|session| Seat { session: session.number, slot: session.slot, rule: one.rule });
        let seat = match seat {
            Some(seat) => seat,
            None => self.new_standing(state, one)?,
        };
        lock(&self.maps).set_standing(one.number, &seat).map_err(super::super::sessions::internal)
    }

    fn new_standing(&self, state: &mut State, one: &Wanted) -> Result<Seat, ApiError> {
        let (_, index, mode) = state.profile(&one.profile)?;
        let (number, slot) = self.next_session(state)?;
        let mut session = Session {
            id: Ulid::new(),
            number,
            slot,
            profile: one.profile.clone(),
            index,
            mode,
            name: Some(one.key.clone()),
            task: None,
            command: Vec::new(),
            cwd: one.cwd.to_string_lossy().into_owned(),
            started: Time::now(),
            ended: None,
            state: SessionState::Running,
            started_by: who(one.uid, None),
            root_pid: 0,
            tty: 0,
            binding: 0,
            paths: None,
            origin: Origin::Enroll,
            enrolled: Some(one.key.clone()),
            standing: one.number,
            outer: Vec::new(),
            instead: None,
        };
        // Whoever is in one that has another profile stays there; it ends like every other.
        for old in state.sessions.values_mut().filter(|old| old.enrolled.as_deref() == Some(&one.key)) {
            old.enrolled = None;
            if let Err(error) = self.store.write(old) {
                tracing::warn!(%error, "the session's file");
            }
        }
        self.bind(state, &mut session)?;
        if let Err(error) = self.begin(&session) {
            self.unbind(state, session.binding);
            return Err(error);
        }
        state.sessions.insert(number, session);
        self.say_enrolled(state, number);
        Ok(Seat { session: number, slot, rule: one.rule })
    }

    fn forget_users(&self, wanted: &[Wanted]) -> Result<(), kernel::Error> {
        let mut maps = lock(&self.maps);
        for uid in maps.enrolled_users()? {
            if !wanted.iter().any(|one| one.user && one.uid == uid) {
                maps.disenroll_user(uid)?;
            }
        }
        Ok(())
    }

    fn enroll_users(&self, wanted: &[Wanted]) -> Result<(), kernel::Error> {
        let mut maps = lock(&self.maps);
        wanted.iter().filter(|one| one.user).try_for_each(|one| maps.enroll_user(one.uid, one.number))
    }

    /// Tells the kernel side which control groups that are there are enrolled. Those that come later it finds by itself.
    fn enroll_groups(&self, state: &mut State) -> Result<(), kernel::Error> {
        let Some(in_force) = &state.in_force else { return Ok(()) };
        // What is missed from here on is counted, and looked after next time.
        let (missed, _) = lock(&self.maps).missed_groups()?;
        let before = lock(&self.maps).enrolled_groups()?;
        let Some(root) = hierarchy().filter(|_| in_force.policy.enrolls_groups()) else {
            let mut maps = lock(&self.maps);
            before.keys().try_for_each(|id| maps.disenroll_group(*id))?;
            return maps.set_looked(Missed { first: 0, count: missed.count });
        };
        let found = groups(&root, &in_force.compiled)
            .map_err(|error| kernel::Error::call("readdir", root.display().to_string())(error))?;
        let mut maps = lock(&self.maps);
        before.keys().filter(|id| !found.contains_key(id)).try_for_each(|id| maps.disenroll_group(*id))?;
        // In the order of their numbers: those behind one that has no room are refused with it.
        let failed =
            found.iter().find_map(|(id, number)| Some((*id, maps.enroll_group(*id, *number).err()?)));
        let looked = match &failed {
            Some((first, _)) => Missed { first: *first, count: u64::MAX },
            None => Missed { first: 0, count: missed.count },
        };
        maps.set_looked(looked)?;
        drop(maps);
        self.say_running(state, &root);
        failed.map_or(Ok(()), |(_, error)| Err(error))
    }

    /// Looks after control groups that the kernel side could not note. Until that is done nothing is executed there.
    pub(super) fn look_after_groups(&self, state: &mut State) {
        let missed = match lock(&self.maps).missed_groups() {
            Ok((missed, looked)) => missed.count != looked.count,
            Err(error) => {
                state.enrolled.unnoted = Some(format!("whether all control groups are enrolled: {error}"));
                return;
            }
        };
        if !missed {
            state.enrolled.unnoted = None;
            return;
        }
        if state.enrolled.tried.is_some_and(|tried| tried.elapsed() < GROUPS_EVERY) {
            return;
        }
        state.enrolled.tried = Some(Instant::now());
        let done = self.enroll_groups(state);
        let what = done.as_ref().err().map(|error| {
            format!(
                "control groups that may be enrolled can't be noted, so nothing is executed in those made since: {error}; remove \
                 some, or change the policy"
            )
        });
        match &what {
            Some(what) => tracing::error!("{what}"),
            None => tracing::warn!("control groups could not be noted when they were made; all are now"),
        }
        state.enrolled.unnoted = what;
    }

    /// Tells the kernel side which program the service manager executes for services.
    pub(super) fn tell_executor(&self) -> Result<(), kernel::Error> {
        let found = EXECUTORS.iter().find_map(|path| self.fs.lookup(Path::new(path), true).ok());
        let executor = found.map_or_else(ObjectKey::default, |found| found.key);
        let mut maps = lock(&self.maps);
        let told = maps.guard()?;
        if told.executor == executor { Ok(()) } else { maps.set_guard(&Told { executor, ..told }) }
    }

    /// What runs already isn't enrolled before it executes something: people are told.
    fn say_running(&self, state: &State, root: &Path) {
        let Some(in_force) = &state.in_force else { return };
        let tagged: HashSet<u32> = self.tagged_processes().into_iter().map(|(pid, _)| pid).collect();
        let outside = proc::all().unwrap_or_default().into_iter().filter(|pid| {
            !tagged.contains(pid)
                && group_of(&pid.to_string())
                    .is_some_and(|group| in_force.compiled.standing_of(&group).is_some())
        });
        let pids: Vec<_> = outside.map(|pid| pid.to_string()).collect();
        if !pids.is_empty() {
            tracing::warn!(
                root = %root.display(),
                pids = pids.join(" "),
                "processes that run already in control groups that are enrolled are in no session: restart the unit, or \
                 agent-guard attach"
            );
        }
    }
}

/// Everybody who needs a standing session.
fn wanted(state: &State) -> Vec<Wanted> {
    let Some(in_force) = &state.in_force else { return Vec::new() };
    let rules = in_force.compiled.rules.iter().filter(|rule| rule.kind == crate::policy::RuleKind::Enroll);
    let all = in_force.policy.enrolled().zip(rules);
    let standing = all.filter(|((entry, _), _)| entry.by != By::Exe);
    standing
        .filter_map(|((entry, target), rule)| {
            let user = entry.by == By::User;
            let uid = if user { sys::user_id(&target.text)? } else { 0 };
            let home = || if user { sys::home_of(uid) } else { None };
            Some(Wanted {
                key: entry.key(target),
                number: target.number,
                profile: entry.profile.clone(),
                cwd: entry.cwd.clone().or_else(home).unwrap_or_else(|| PathBuf::from("/")),
                uid,
                rule: rule.number,
                user,
            })
        })
        .collect()
}

/// Users who were there when the policy was loaded. What is executed as one of them is still enrolled, by their number.
fn vanished(state: &State) -> Vec<String> {
    let enrolled = state.in_force.iter().flat_map(|in_force| in_force.policy.enrolled());
    let users = enrolled.filter(|(entry, _)| entry.by == By::User).map(|(_, target)| target.text.clone());
    users.filter(|name| sys::user_id(name).is_none()).collect()
}

/// The numbers of all control groups that are enrolled, with those of their standing sessions.
fn groups(root: &Path, compiled: &Compiled) -> io::Result<BTreeMap<u64, u32>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    let mut left = MAX_GROUPS;
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(root.join(&at))? {
            // One that has gone meanwhile has nobody in it.
            let Ok(entry) = entry else { continue };
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            left = left
                .checked_sub(1)
                .ok_or_else(|| io::Error::other("more control groups than can be looked at"))?;
            let path = at.join(entry.file_name());
            let number = path.to_str().and_then(|path| compiled.standing_of(&format!("/{path}")));
            if let (Some(number), Ok(metadata)) = (number, entry.metadata()) {
                // The number of a control group is that of its directory (`kernfs_ino`, include/linux/kernfs.h).
                found.insert(metadata.ino(), number);
            }
            waiting.push(path);
        }
    }
    Ok(found)
}
