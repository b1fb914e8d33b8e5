//! What a policy demands of the kernel, one by one: rules, and what profiles say of everything else.

use agent_guard_common::{Op, Verdict};

use super::{
    diagnostic::Diagnostic,
    model::{Degraded, Mode, Origin, Policy, Profile},
    persistence,
    rules::{self, RuleInfo, RuleKind},
};
use crate::kernel::enforcement::Enforcement;

/// The part of a policy that a demand belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `[[critical]]`.
    Critical,
    /// `files.rule`.
    Files,
    /// `files.outside`.
    Outside,
    /// Addresses and Unix sockets in `network.allow` and its kin.
    Network,
    /// Names of hosts in there.
    Names,
    /// `network.connect`.
    Connect,
    /// `network.listen`.
    Listen,
    /// `exec.rule`.
    Exec,
    /// `exec.anonymous`.
    Anonymous,
    /// `files.persistence`.
    Persistence,
    /// `system`.
    System,
    /// The guard itself.
    Guard,
    /// `enroll`.
    Enroll,
}

impl Part {
    /// The name that the API uses.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Files => "files",
            Self::Outside => "outside",
            Self::Network => "network",
            Self::Names => "names",
            Self::Listen => "listen",
            Self::Connect => "connect",
            Self::Exec => "exec",
            Self::Anonymous => "anonymous",
            Self::Persistence => "persistence",
            Self::System => "system",
            Self::Guard => "guard",
            Self::Enroll => "enroll",
        }
    }
}

impl From<RuleKind> for Part {
    fn from(kind: RuleKind) -> Self {
        match kind {
            RuleKind::Critical => Self::Critical,
            RuleKind::Rule => Self::Files,
            RuleKind::Network => Self::Network,
            RuleKind::Name => Self::Names,
            RuleKind::Listen => Self::Listen,
            RuleKind::Exec => Self::Exec,
            RuleKind::Persistence => Self::Persistence,
            RuleKind::Guard => Self::Guard,
            RuleKind::Enroll => Self::Enroll,
        }
    }
}

/// Something that a policy wants to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Its number in the list of rules, if it has one.
    pub number: Option<u32>,
    /// Where it belongs.
    pub part: Part,
    /// Profile; none for what concerns all.
    pub profile: Option<String>,
    /// It, as a person would say it.
    pub text: String,
    /// Operations that it is about.
    pub ops: Vec<Op>,
    /// What is to happen.
    pub verdict: Verdict,
    /// Whether it is to happen, or only to be told.
    pub mode: Mode,
    /// Where the policy says it; where the profile begins if it doesn't.
    pub origin: Origin,
}

impl Demand {
    /// That of a rule; `mode` is that of its profile.
    #[must_use]
    pub fn of_rule(rule: &RuleInfo, mode: Mode) -> Self {
        let part = Part::from(rule.kind);
        let critical = matches!(part, Part::Critical | Part::Guard | Part::Enroll);
        Self {
            number: Some(rule.number),
            part,
            profile: rule.profile.clone(),
            text: rule.text(),
            ops: rule.operations(),
            verdict: Verdict::from_name(&rule.verdict).unwrap_or(Verdict::DENY),
            mode: if critical { Mode::Enforce } else { mode },
            origin: Origin { file: rule.file.clone(), line: rule.line, column: rule.column },
        }
    }

    /// Whether something is to be stopped.
    #[must_use]
    pub fn blocks(&self) -> bool {
        self.mode == Mode::Enforce && !self.verdict.goes_on()
    }
}

/// All that a policy demands: rules in the order of their numbers, then profile by profile the rest.
#[must_use]
pub fn demands(policy: &Policy) -> Vec<Demand> {
    let mode_of = |name: &Option<String>| {
        let profile = name.as_deref().and_then(|name| policy.profile(name));
        profile.map_or(Mode::Enforce, |profile| profile.mode)
    };
    // One demand for each profile's whole set says as much as hundreds of rules that are alike.
    let rules = rules::list(policy).into_iter().filter(|rule| rule.kind != RuleKind::Persistence);
    let rules = rules.map(|rule| Demand::of_rule(&rule, mode_of(&rule.profile)));
    rules.chain(policy.profiles.iter().flat_map(of_profile)).collect()
}

fn of_profile(profile: &Profile) -> Vec<Demand> {
    let demand = |part, op, verdict: Verdict, text: String, origin: Option<&Origin>| Demand {
        number: None,
        part,
        profile: Some(profile.name.clone()),
        text: format!("{} {text}", verdict.name()),
        ops: vec![op],
        verdict,
        mode: profile.mode,
        origin: origin.unwrap_or(&profile.origin).clone(),
    };
    let outside = Op::FILE
        .map(|op| demand(Part::Outside, op, profile.outside.get(op), format!("{} outside", op.name()), None));
    let connect = Demand {
        ops: vec![Op::CONNECT, Op::UNIX],
        ..demand(Part::Connect, Op::CONNECT, profile.connect, "connect elsewhere".to_owned(), None)
    };
    let listen = demand(Part::Listen, Op::LISTEN, Verdict::DENY, "listen elsewhere".to_owned(), None);
    let anonymous = profile.exec.anonymous;
    let anonymous =
        demand(Part::Anonymous, Op::EXEC, anonymous, "exec of what no path leads to".to_owned(), None);
    let persistence = &profile.persistence;
    let persistent = Demand {
        ops: persistence::OPS.to_vec(),
        ..demand(
            Part::Persistence,
            Op::WRITE,
            persistence.verdict,
            format!("what makes something run later, {} paths", persistence.rules.len()),
            Some(&persistence.origin),
        )
    };
    let system = Op::SYSTEM.map(|op| {
        let verdict = profile.system.get(op);
        demand(Part::System, op, verdict, op.name().to_owned(), profile.system.origin(op))
    });
    let names = profile.system.capability_names();
    let (verdict, text) = match names.as_slice() {
        [all] if all == "*" => (Verdict::ALLOW, "capabilities".to_owned()),
        [] => (Verdict::DENY, "capabilities".to_owned()),
        names => (Verdict::DENY, format!("capabilities but {}", names.join(", "))),
    };
    let capabilities = demand(Part::System, Op::CAPABILITY, verdict, text, None);
    outside
        .into_iter()
        .chain([persistent, connect, listen, anonymous])
        .chain(system)
        .chain([capabilities])
        .collect()
}

/// What a kernel can't enforce of a policy: errors where the policy wants something stopped, warnings where it only wants
/// to hear of it. Rules of the guard's own are one error: no policy can do without them.
#[must_use]
pub fn unenforceable(policy: &Policy, kernel: &Enforcement) -> Vec<Diagnostic> {
    let (own, said): (Vec<_>, Vec<_>) =
        demands(policy).into_iter().partition(|demand| demand.part == Part::Guard);
    let judged = said.iter().filter(|demand| demand.verdict != Verdict::ALLOW);
    let found = judged.filter_map(|demand| lacking(demand, kernel, is_excused(policy, demand)));
    let own = own.iter().find_map(|demand| lacking(demand, kernel, is_excused(policy, demand)));
    found.chain(own).collect()
}

/// Whether the policy is content with being told that something can't be enforced: its profile, or all profiles that enforce where it
/// concerns all.
fn is_excused(policy: &Policy, demand: &Demand) -> bool {
    let mut concerned = policy.profiles.iter().filter(|profile| match &demand.profile {
        Some(name) => profile.name == *name,
        None => profile.mode == Mode::Enforce,
    });
    concerned.all(|profile| profile.degraded == Degraded::Report)
}

/// What a kernel can't enforce of a demand.
fn lacking(demand: &Demand, kernel: &Enforcement, excused: bool) -> Option<Diagnostic> {
    let lacks = kernel.lacks(&demand.ops);
    if lacks.is_empty() {
        return None;
    }
    let lacks = lacks.join("; ");
    let of = demand.profile.as_ref().map(|name| format!(" (profile `{name}`)")).unwrap_or_default();
    let text = &demand.text;
    if !demand.blocks() {
        return Some(Diagnostic::warning(
            &demand.origin,
            format!("not all of `{text}`{of} will be told: {lacks}"),
        ));
    }
    if excused {
        return Some(Diagnostic::warning(
            &demand.origin,
            format!(
                "`{text}`{of} isn't enforced in full, and the policy says that it may be degraded: {lacks}"
            ),
        ));
    }
    let error = Diagnostic::error(&demand.origin, format!("`{text}`{of} can't be enforced: {lacks}"));
    Some(error.help(match demand.part {
        Part::Guard => {
            "the guard can't protect itself on this kernel: use another one; `agent-guard doctor` says what this one can \
             enforce"
        }
        _ => {
            "say `allow` of it, have the profile report only, be content without it (`degraded = \"report\"`), or use another \
             kernel; `agent-guard doctor` says what this one can enforce"
        }
    }))
}

#[cfg(test)]
mod tests {
    use agent_guard_common::event::Hook;

    use super::super::{diagnostic::Level, load, source::Source};
    use super::*;
    use crate::kernel::{enforcement::State, programs::PROGRAMS};

    fn policy(text: &str) -> Policy {
        let text = format!("version = 1\n{text}");
        load(vec![Source { name: "a.toml".to_owned(), text }]).unwrap()
    }

    fn without(hook: Hook) -> Enforcement {
        let state = |name: &str| if name == hook.name() { State::Absent } else { State::AtWork };
        Enforcement::new(PROGRAMS.iter().map(|program| (*program, state(program.name))), Vec::new())
    }

    const RULES: &str = "[[critical]]\npath = \"/srv\"\nops = [\"delete\"]\nverdict = \"hold\"\nreason = \"r\"\n\
                         [profile.p]\nmode = \"report\"\n[profile.p.network]\nallow = [\"10.0.0.1\", \"*.example.org\"]\nlisten = [\"localhost\"]\n\
                         [profile.p.system]\nmount = \"allow\"\ncapabilities = [\"chown\"]\n";

    #[test]
    fn everything_that_a_policy_says() {
        let all = demands(&policy(RULES));
        // Four rules; seven operations outside, persistence, connecting, listening, programs without a path, those on the system,
        // capabilities.
        assert_eq!(all.len(), 4 + 7 + 1 + 1 + 1 + 1 + Op::SYSTEM.len() + 1);
        let texts: Vec<&str> = all.iter().map(|demand| demand.text.as_str()).collect();
        for text in [
            "hold delete /srv",
            "allow connect 10.0.0.1",
            "allow connect *.example.org",
            "allow listen localhost",
            "deny listen elsewhere",
            "deny write outside",
            "deny connect elsewhere",
            "allow mount",
            "deny reboot",
            "deny capabilities but chown",
        ] {
            assert!(texts.contains(&text), "{text} in {texts:?}");
        }
        let of = |text: &str| all.iter().find(|demand| demand.text == text).unwrap();
        assert!(of("hold delete /srv").blocks() && !of("deny write outside").blocks());
        assert_eq!((of("allow mount").origin.line, of("deny reboot").origin.line), (13, 7));
        assert_eq!((of("hold delete /srv").number, of("deny reboot").number), (Some(1), None));
    }

    #[test]
    fn what_a_kernel_lacks_is_refused_by_name() {
        let enforced = policy(&RULES.replace("mode = \"report\"\n", ""));
        let all = unenforceable(&enforced, &without(Hook::PATH_RMDIR));
        let texts: Vec<String> = all.iter().map(ToString::to_string).collect();
        assert_eq!(all.len(), 3, "{texts:?}");
        assert!(texts[0].starts_with("a.toml:3:8: error: `hold delete /srv` can't be enforced"), "{texts:?}");
        assert!(texts[0].contains("path_rmdir") && texts[0].contains("agent-guard doctor"), "{texts:?}");
        assert!(texts[1].contains("`deny delete outside` (profile `p`)"), "{texts:?}");
        assert!(unenforceable(&enforced, &without(Hook::FILE_TRUNCATE)).is_empty());
    }

    /// Rules about addresses don't need what sees Unix sockets.
    #[test]
    fn addresses_and_sockets_have_hooks_of_their_own() {
        let text = |network: &str| {
            format!("[profile.p.network]\nconnect = \"allow\"\nreport = [\"10.0.0.1\"]\n{network}")
        };
        for hook in [Hook::UNIX_MAY_SEND, Hook::SOCKET_POST_CREATE, Hook::UNIX_STREAM_CONNECT] {
            assert!(unenforceable(&policy(&text("")), &without(hook)).is_empty());
            for entry in ["unix:/run/x", "unix:@x*"] {
                let all = unenforceable(&policy(&text(&format!("deny = [{entry:?}]\n"))), &without(hook));
                assert_eq!(all.len(), 1, "{all:?}");
                let said = all[0].to_string();
                assert!(
                    said.contains(hook.name()) && said.contains(&format!("deny connect {entry}")),
                    "{said}"
                );
            }
        }
        let all = unenforceable(&policy("[profile.p]\n"), &without(Hook::UNIX_MAY_SEND));
        assert!(all.iter().any(|one| one.to_string().contains("deny connect elsewhere")), "{all:?}");
        assert!(unenforceable(&policy(&text("")), &without(Hook::SOCKET_CONNECT))[0].level == Level::Warning);
    }

    #[test]
    fn the_guard_must_be_able_to_protect_itself() {
        let free = "[profile.p.files]\npersistence = \"allow\"\noutside = { create = \"allow\" }\n";
        let mut policy = policy(free);
        let kernel = without(Hook::PATH_MKDIR);
        assert!(unenforceable(&policy, &kernel).is_empty());
        policy.protect(&super::super::Own::with(["/run/a".into(), "/run/b".into()]));
        let all = unenforceable(&policy, &kernel);
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].level == Level::Error && all[0].to_string().contains("protect itself"), "{all:?}");
    }

    #[test]
    fn what_only_reports_loads_with_a_warning() {
        let all = unenforceable(&policy(RULES), &without(Hook::SETTIME));
        assert_eq!(all.len(), 1);
        assert!(all[0].level == Level::Warning && all[0].message.contains("settime"), "{all:?}");
        assert!(unenforceable(&policy(RULES), &without(Hook::MOVE_MOUNT)).is_empty());
    }
}
