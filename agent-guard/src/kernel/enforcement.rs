//! What is enforced of an operation: which hooks judge it, what is missing here, and what can wait for people.
//!
//! The one place that knows it, for `status`, `doctor` and the load of a policy. *In full* means that every hook that
//! the operation needs on this kernel is at work, and that the verdict is carried out as it is. Ways round that are the
//! same on every kernel are in `docs/bypasses.md`.

use agent_guard_common::{Op, Verdict, event::Hook};
use serde::{Deserialize, Serialize};

use super::{
    btf::Btf,
    host::Host,
    programs::{self, Program},
    support::{self, Tier},
};

/// How much of something is enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Extent {
    /// Nothing.
    None,
    /// Not everything.
    Part,
    /// Everything.
    Full,
}

/// Where a program stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It judges, or would as soon as a policy needs it.
    AtWork,
    /// No policy needs it.
    Idle,
    /// It should judge, and its pin isn't there.
    Gone,
    /// The kernel doesn't have its hook.
    Absent,
}

/// What is enforced of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    /// Hooks that judge it.
    pub hooks: Vec<&'static str>,
    /// How much of it they are.
    pub extent: Extent,
    /// Why it isn't everything.
    pub why: Vec<String>,
}

/// Whether a call can wait for people: then what the hook returns reaches the system call, and the call can be started
/// again. Follows what the hooks say of themselves (`restarts` in `agent-guard-ebpf/src/hooks`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holdable {
    /// It can.
    Yes,
    /// But for these.
    But(&'static str),
    /// It can't.
    No,
}

/// Whether the calls of an operation can wait for people. Calls by io_uring and descriptors that are received can't,
/// whatever they are.
#[must_use]
pub const fn holdable(op: Op) -> Holdable {
    match op {
        Op::MODULES
        | Op::KEXEC
        | Op::REBOOT
        | Op::CLOCK
        | Op::SWAP
        | Op::HOSTNAME
        | Op::KEYRINGS
        | Op::PTRACE
        | Op::SIGNAL
        | Op::PRIORITY
        | Op::CAPABILITY => Holdable::No,
        Op::MOUNT => Holdable::But("mount_setattr, fsopen, open_tree and their like, and chroot"),
        Op::NAMESPACES => Holdable::But("name spaces that aren't for users, and entering any"),
        Op::RAW_DISK => Holdable::But("what needs CAP_SYS_RAWIO and opens nothing"),
        Op::RAW_NETWORK => Holdable::But("what needs CAP_NET_RAW and makes no socket"),
        _ => Holdable::Yes,
    }
}

/// What a kernel, or a guard that runs on it, enforces.
#[derive(Clone, Debug)]
pub struct Enforcement {
    programs: Vec<(Program, State)>,
    /// Why nothing is enforced at all.
    blocked: Vec<String>,
    /// Why nothing is enforced in full.
    limited: Vec<String>,
    /// Why nothing but the network is.
    network_only: Option<String>,
}

impl Enforcement {
    /// What a kernel can enforce, by its types and by what else is known of it.
    #[must_use]
    pub fn of_kernel(btf: &Btf, host: &Host, tier: &Tier) -> Self {
        let state = |program: &Program| match programs::present(btf, program) {
            true => State::AtWork,
            false => State::Absent,
        };
        let all = programs::programs(tier).map(|program| (*program, state(program)));
        Self::new(all, support::shortcomings(host)).within(tier)
    }

    /// What these programs enforce, on a kernel with these shortcomings.
    pub fn new(programs: impl IntoIterator<Item = (Program, State)>, shortcomings: Vec<String>) -> Self {
        let programs: Vec<_> = programs.into_iter().collect();
        let mut limited = shortcomings;
        // Who loses the tag is judged by nobody.
        let tag = programs.iter().filter(|(program, _)| program.name == Hook::TASK_ALLOC.name());
        limited.extend(tag.filter_map(|(program, state)| missing(program, *state)));
        Self { programs, blocked: Vec::new(), limited, network_only: None }
    }

    /// The same on a kernel that can have no more enforced.
    #[must_use]
    pub fn within(mut self, tier: &Tier) -> Self {
        self.network_only = tier.why().map(str::to_owned);
        self
    }

    /// The same where nothing can be loaded, and why.
    #[must_use]
    pub fn blocked(mut self, why: impl IntoIterator<Item = String>) -> Self {
        self.blocked.extend(why);
        self
    }

    /// What is enforced of some operations.
    #[must_use]
    pub fn coverage(&self, ops: &[Op]) -> Coverage {
        if !self.blocked.is_empty() {
            return Coverage { hooks: Vec::new(), extent: Extent::None, why: self.blocked.clone() };
        }
        let judging = self.programs.iter().filter(|(program, _)| program.judges(ops));
        let mut coverage = of_programs(judging);
        if let Some(why) = &self.network_only {
            coverage.extent = if coverage.hooks.is_empty() { Extent::None } else { Extent::Part };
            coverage.why.push(why.clone());
            return coverage;
        }
        let of_each: Vec<Extent> = ops.iter().map(|op| self.of_op(*op)).collect();
        if of_each.iter().all(|extent| *extent == Extent::Full) && self.limited.is_empty() {
            return coverage;
        }
        let nothing = !ops.is_empty() && of_each.iter().all(|extent| *extent == Extent::None);
        coverage.extent = if nothing { Extent::None } else { Extent::Part };
        coverage.why.extend(self.limited.iter().cloned());
        coverage
    }

    /// Names of the hooks that judge some operations.
    #[must_use]
    pub fn hooks(&self, ops: &[Op]) -> Vec<String> {
        self.coverage(ops).hooks.into_iter().map(str::to_owned).collect()
    }

    fn of_op(&self, op: Op) -> Extent {
        of_programs(self.programs.iter().filter(|(program, _)| program.judges(&[op]))).extent
    }

    /// What is enforced of a verdict for some operations: a call that can't wait is denied instead of held, and nothing is
    /// needed for one that is allowed.
    #[must_use]
    pub fn verdict(&self, ops: &[Op], verdict: Verdict) -> Coverage {
        let mut coverage = self.coverage(ops);
        if verdict == Verdict::ALLOW {
            return Coverage { extent: Extent::Full, why: Vec::new(), ..coverage };
        }
        if verdict != Verdict::HOLD || coverage.extent == Extent::None {
            return coverage;
        }
        if self.network_only.is_some() {
            coverage.why.push("nothing can wait for people here: it is denied instead".to_owned());
            return coverage;
        }
        for op in ops {
            let name = op.name();
            coverage.why.extend(match holdable(*op) {
                Holdable::Yes => continue,
                Holdable::But(what) => {
                    Some(format!("not all of `{name}` can wait for people; denied instead: {what}"))
                }
                Holdable::No => Some(format!("`{name}` can't wait for people: it is denied instead")),
            });
            coverage.extent = Extent::Part;
        }
        coverage
    }

    /// Whether anything can wait for people.
    #[must_use]
    pub const fn holds(&self) -> bool {
        self.network_only.is_none()
    }

    /// What no policy says: programs that keep the tag and the guard itself, each with what is enforced.
    pub fn always(&self) -> impl Iterator<Item = (&Program, Coverage)> {
        let always =
            self.programs.iter().filter(|(program, _)| program.always && program.lsm_hook().is_some());
        always.map(|entry| {
            if self.blocked.is_empty() {
                return (&entry.0, of_programs(std::iter::once(entry)));
            }
            let none = Coverage { hooks: Vec::new(), extent: Extent::None, why: self.blocked.clone() };
            (&entry.0, none)
        })
    }

    /// Why this kernel can't enforce all of some operations: hooks that it doesn't have, and that no other stands in for.
    #[must_use]
    pub fn lacks(&self, ops: &[Op]) -> Vec<String> {
        if let Some(why) = &self.network_only {
            let judged = |op: &Op| self.programs.iter().any(|(program, _)| program.judges(&[*op]));
            return if ops.iter().all(judged) { Vec::new() } else { vec![why.clone()] };
        }
        let judging = self.programs.iter().filter(|(program, _)| program.judges(ops));
        let absent = judging.filter(|(_, state)| *state == State::Absent);
        absent.filter_map(|(program, state)| missing(program, *state)).collect()
    }
}

/// What these programs enforce together.
fn of_programs<'a>(programs: impl Iterator<Item = &'a (Program, State)>) -> Coverage {
    let mut coverage = Coverage { hooks: Vec::new(), extent: Extent::Full, why: Vec::new() };
    for (program, state) in programs.filter(|(program, _)| program.decides()) {
        if *state == State::AtWork {
            coverage.hooks.push(program.name);
        }
        coverage.why.extend(missing(program, *state));
    }
    if !coverage.why.is_empty() {
        coverage.extent = if coverage.hooks.is_empty() { Extent::None } else { Extent::Part };
    }
    coverage
}

/// What is missing where a program stands like this.
fn missing(program: &Program, state: State) -> Option<String> {
    let Program { name, enforces, .. } = program;
    match state {
        State::AtWork | State::Idle => None,
        State::Gone => Some(gone(program)),
        State::Absent if program.instead.is_some() => None,
        State::Absent => Some(format!("this kernel has no LSM hook {name}: {enforces}")),
    }
}

/// A program that somebody has taken away.
#[must_use]
pub fn gone(program: &Program) -> String {
    format!("{} isn't at work any more: {}; restart agent-guard", program.name, program.enforces)
}

#[cfg(test)]
mod tests {
    use super::{super::programs::PROGRAMS, *};

    /// All programs, some of them in another state.
    fn with(states: &[(Hook, State)]) -> Enforcement {
        let state = |program: &Program| {
            let named = states.iter().find(|(hook, _)| hook.name() == program.name);
            named.map_or(State::AtWork, |(_, state)| *state)
        };
        Enforcement::new(PROGRAMS.iter().map(|program| (*program, state(program))), Vec::new())
    }

    #[test]
    fn every_operation_has_hooks() {
        let all = with(&[]);
        for op in Op::all().chain([Op::CAPABILITY]) {
            let coverage = all.coverage(&[op]);
            assert_eq!(coverage.extent, Extent::Full, "{}", op.name());
            assert!(!coverage.hooks.is_empty() && coverage.why.is_empty(), "{}", op.name());
        }
        assert_eq!(all.coverage(&[Op::DELETE]).hooks, ["path_unlink", "path_rmdir", "path_rename"]);
    }

    #[test]
    fn a_hook_that_another_stands_in_for_is_not_missing() {
        let old = with(&[(Hook::FILE_TRUNCATE, State::Absent), (Hook::INODE_SET_ACL, State::Absent)]);
        for op in [Op::WRITE, Op::METADATA] {
            let coverage = old.coverage(&[op]);
            assert_eq!((coverage.extent, coverage.why), (Extent::Full, Vec::<String>::new()));
            assert!(!coverage.hooks.contains(&"file_truncate"));
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let some = with(&[(Hook::PATH_RMDIR, State::Absent), (Hook::SETTIME, State::Gone)]);
        let delete = some.coverage(&[Op::DELETE]);
        assert_eq!(delete.extent, Extent::Part);
        assert!(delete.why[0].contains("no LSM hook path_rmdir"), "{delete:?}");
        assert_eq!(some.coverage(&[Op::READ]).extent, Extent::Full);
        assert_eq!(some.coverage(&[Op::READ, Op::DELETE]).extent, Extent::Part);
        assert!(some.coverage(&[Op::CLOCK]).why[0].contains("settime isn't at work any more"));
        assert_eq!((some.lacks(&[Op::DELETE]).len(), some.lacks(&[Op::CLOCK]).len()), (1, 0));
        assert_eq!(some.verdict(&[Op::DELETE], Verdict::DENY).extent, Extent::Part);
        assert_eq!(some.verdict(&[Op::DELETE], Verdict::ALLOW).extent, Extent::Full);
        let none = with(&[(Hook::BPRM_CREDS_FROM_FILE, State::Absent)]);
        assert_eq!(none.coverage(&[Op::SETUID]).extent, Extent::None);
        assert_eq!(none.coverage(&[Op::SETUID, Op::READ]).extent, Extent::Part);
    }

    #[test]
    fn what_no_rule_needs_is_not_missing() {
        let idle = with(&[(Hook::PATH_CHMOD, State::Idle), (Hook::PATH_CHOWN, State::Idle)]);
        assert_eq!(idle.coverage(&[Op::METADATA]).extent, Extent::Full);
    }

    #[test]
    fn without_the_tag_nothing_is_whole() {
        let lost = with(&[(Hook::TASK_ALLOC, State::Gone)]);
        let read = lost.coverage(&[Op::READ]);
        assert_eq!(read.extent, Extent::Part);
        assert!(read.why[0].contains("task_alloc"), "{read:?}");
    }

    #[test]
    fn what_cannot_wait_is_said() {
        let all = with(&[]);
        let reboot = all.verdict(&[Op::REBOOT], Verdict::HOLD);
        assert_eq!(reboot.extent, Extent::Part);
        assert!(reboot.why[0].contains("`reboot` can't wait"), "{reboot:?}");
        assert!(all.verdict(&[Op::MOUNT], Verdict::HOLD).why[0].contains("mount_setattr"));
        assert_eq!(all.verdict(&[Op::REBOOT], Verdict::DENY).extent, Extent::Full);
        assert_eq!(all.verdict(&[Op::DELETE, Op::WRITE], Verdict::HOLD).extent, Extent::Full);
    }

    #[test]
    fn without_lsm_programs_only_the_network_is() {
        let tier = Tier::NetworkOnly("no bpf".to_owned());
        let all = programs::programs(&tier).map(|program| (*program, State::AtWork));
        let only = Enforcement::new(all, Vec::new()).within(&tier);
        for (op, extent) in [
            (Op::CONNECT, Extent::Part),
            (Op::LISTEN, Extent::Part),
            (Op::UNIX, Extent::None),
            (Op::DELETE, Extent::None),
        ] {
            let coverage = only.verdict(&[op], Verdict::DENY);
            assert_eq!(coverage.extent, extent, "{}", op.name());
            assert_eq!(only.lacks(&[op]).is_empty(), extent == Extent::Part, "{}", op.name());
            assert!(coverage.why.contains(&"no bpf".to_owned()));
        }
        assert_eq!(only.lacks(&[Op::CONNECT, Op::DELETE]), ["no bpf"]);
        assert!(only.verdict(&[Op::CONNECT], Verdict::HOLD).why[1].contains("denied instead"));
        assert_eq!(only.always().count(), 0);
    }

    #[test]
    fn where_nothing_loads_nothing_is_enforced() {
        let none = with(&[]).blocked(["no BPF".to_owned()]);
        let read = none.verdict(&[Op::READ], Verdict::HOLD);
        assert_eq!((read.extent, read.why, read.hooks.len()), (Extent::None, vec!["no BPF".to_owned()], 0));
        assert!(none.always().all(|(_, coverage)| coverage.extent == Extent::None));
        assert!(with(&[]).always().any(|(program, _)| program.name == "task_kill"));
    }
}
