//! What can happen, as the daemon says it. How it looks outside is [`super::ocsf`]'s business alone.

mod object;

use agent_guard_common::{Fault, Op, Source, Verdict, event::Hook};
use ulid::Ulid;

pub use object::{AddressRef, CommandRef, FileRef, NameRef, Object, QueryOutcome, SocketRef, SystemRef};

use crate::{
    api::types::{Mode, Origin, ProcessInfo, Time, Who},
    policy::RuleKind,
};

/// Something that happened.
#[derive(Clone, Debug)]
pub struct Event {
    /// When.
    pub time: Time,
    /// Its unique id.
    pub uid: Ulid,
    /// What.
    pub activity: Activity,
}

impl Event {
    /// Something that happens now.
    #[must_use]
    pub fn now(activity: Activity) -> Self {
        Self::at(Time::now(), activity)
    }

    /// Something that happened at a known time.
    #[must_use]
    pub fn at(time: Time, activity: Activity) -> Self {
        Self { time, uid: Ulid::new(), activity }
    }

    /// Whether it says that something was or would be stopped; these are the last to be lost.
    #[must_use]
    pub fn is_decision(&self) -> bool {
        match &self.activity {
            Activity::Judged(judged) => !judged.verdict.goes_on(),
            Activity::SessionStarted(_) | Activity::SessionEnded(_) => false,
            _ => true,
        }
    }
}

/// What can happen.
#[derive(Clone, Debug)]
pub enum Activity {
    /// The daemon is ready.
    GuardStarted(GuardStarted),
    /// The daemon stops; what is in force stays in force.
    GuardStopped(GuardStopped),
    /// Something doesn't work as it should, or does so again.
    GuardDegraded(GuardDegraded),
    /// A session began.
    SessionStarted(SessionStarted),
    /// A session's last process ended.
    SessionEnded(SessionEnded),
    /// A person had a session killed.
    SessionKilled(SessionKilled),
    /// An action was judged.
    Judged(Judged),
    /// An action was frozen; people are asked.
    Held(Held),
    /// A frozen action was decided, or doesn't wait any more.
    Answered(Answered),
    /// Another policy generation is in force.
    PolicyReloaded(PolicyReloaded),
    /// A policy has errors; the old one stays in force.
    PolicyRefused(PolicyRefused),
    /// Events were lost.
    EventsLost(EventsLost),
}

/// See [`Activity::GuardStarted`].
#[derive(Clone, Debug)]
pub struct GuardStarted {
    /// The running kernel's release.
    pub kernel: String,
    /// Hooks that judge.
    pub hooks: Vec<String>,
    /// Hooks that this kernel doesn't have.
    pub absent: Vec<String>,
    /// Policy in force.
    pub policy: PolicyRef,
    /// Whether the kernel side was there already, from before the daemon's restart.
    pub adopted: bool,
    /// What doesn't work as it should.
    pub degraded: Vec<String>,
}

/// See [`Activity::GuardStopped`].
#[derive(Clone, Debug)]
pub struct GuardStopped {
    /// Why.
    pub reason: String,
}

/// See [`Activity::GuardDegraded`].
#[derive(Clone, Debug)]
pub struct GuardDegraded {
    /// What doesn't work as it should now; empty when all is well again.
    pub degraded: Vec<String>,
}

/// See [`Activity::SessionStarted`].
#[derive(Clone, Debug)]
pub struct SessionStarted {
    /// Its first process.
    pub actor: Actor,
    /// Policy in force when it began.
    pub policy: PolicyRef,
    /// The command it was started with.
    pub command: Vec<String>,
    /// The directory it was started in.
    pub cwd: String,
    /// How it began.
    pub origin: Origin,
    /// The session that it was started in.
    pub parent: Option<Ulid>,
    /// The processes that were attached; none where its first process asked for it.
    pub attached: Vec<u32>,
}

/// See [`Activity::SessionEnded`].
#[derive(Clone, Debug)]
pub struct SessionEnded {
    /// Its first process.
    pub actor: Actor,
    /// How long it lasted.
    pub duration_ms: u64,
    /// Whether it was killed.
    pub killed: bool,
}

/// See [`Activity::SessionKilled`].
#[derive(Clone, Debug)]
pub struct SessionKilled {
    /// The session and its first process.
    pub actor: Actor,
    /// Who had it killed.
    pub by: Who,
    /// The process through which they did.
    pub through: Option<ProcessInfo>,
    /// How many processes were killed.
    pub processes: u64,
}

/// See [`Activity::Judged`].
#[derive(Clone, Debug)]
pub struct Judged {
    /// Who.
    pub actor: Actor,
    /// What was decided about what.
    pub decision: Decided,
    /// What was done.
    pub verdict: Verdict,
    /// The hold this ends, where people had been asked.
    pub hold: Option<Ulid>,
}

/// A decision of the policy about an object.
#[derive(Clone, Debug)]
pub struct Decided {
    /// Policy that judged.
    pub policy: PolicyRef,
    /// What was tried.
    pub operation: Op,
    /// What on.
    pub object: Object,
    /// What the policy says.
    pub policy_verdict: Verdict,
    /// Part of the policy that says so.
    pub source: Source,
    /// The rule, where a single one decided.
    pub rule: Option<RuleRef>,
    /// Why it could not be judged as it should.
    pub fault: Fault,
    /// The hook that judged.
    pub hook: Hook,
    /// What the hook returned, 0 or a negative errno.
    pub errno: i32,
}

/// See [`Activity::Held`].
#[derive(Clone, Debug)]
pub struct Held {
    /// The hold.
    pub hold: Ulid,
    /// Who waits.
    pub actor: Actor,
    /// What was decided about what.
    pub decision: Decided,
}

/// How a hold ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call may go on.
    Approved,
    /// The call fails.
    Denied,
    /// The process ended or left the call.
    Withdrawn,
}

impl Outcome {
    /// The name that events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// See [`Activity::Answered`].
#[derive(Clone, Debug)]
pub struct Answered {
    /// The hold.
    pub hold: Ulid,
    /// When it began.
    pub asked: Time,
    /// Who waited.
    pub actor: Actor,
    /// What was decided about what.
    pub decision: Decided,
    /// How it ended.
    pub outcome: Outcome,
    /// Who decided; nobody where it was withdrawn.
    pub by: Option<Who>,
    /// What they said.
    pub comment: Option<String>,
    /// How long it was held.
    pub held_ms: u64,
}

/// See [`Activity::PolicyReloaded`].
#[derive(Clone, Debug)]
pub struct PolicyReloaded {
    /// Who had it reloaded; nothing for the daemon at its start.
    pub by: Option<Who>,
    /// The policy before; generation 0 for none.
    pub before: PolicyRef,
    /// The policy now.
    pub policy: PolicyRef,
    /// Number of profiles.
    pub profiles: u32,
    /// Number of rules.
    pub rules: u32,
}

/// See [`Activity::PolicyRefused`].
#[derive(Clone, Debug)]
pub struct PolicyRefused {
    /// Who had it reloaded; nothing for the daemon at its start.
    pub by: Option<Who>,
    /// The policy that stays in force; generation 0 for none.
    pub policy: PolicyRef,
    /// What is wrong: `file:line:column: message`.
    pub errors: Vec<String>,
}

/// See [`Activity::EventsLost`].
#[derive(Clone, Debug)]
pub struct EventsLost {
    /// What was lost: `decisions`, `reports`, or events on the way to a sink.
    pub kind: String,
    /// Where: `ring buffer`, a sink's name, `follower`, or a path of the guard's that is watched.
    pub place: String,
    /// How many, at least.
    pub count: u64,
    /// The first, as far as is known.
    pub from: Time,
    /// The last.
    pub to: Time,
}

/// Who did it.
#[derive(Clone, Debug, Default)]
pub struct Actor {
    /// The process.
    pub process: ProcessInfo,
    /// Its parents, the nearest first, up to the session's first process.
    pub parents: Vec<ProcessInfo>,
    /// The session.
    pub session: Option<SessionRef>,
}

/// A session, as far as an event names it.
#[derive(Clone, Debug)]
pub struct SessionRef {
    /// Its id.
    pub id: Ulid,
    /// Its name.
    pub name: Option<String>,
    /// Its profile.
    pub profile: String,
    /// Whether the profile blocks.
    pub mode: Mode,
    /// What it is for.
    pub task: Option<String>,
    /// When it began.
    pub started: Time,
    /// Who started it.
    pub started_by: Who,
}

/// A policy, as far as an event names it.
#[derive(Clone, Debug, Default)]
pub struct PolicyRef {
    /// Its generation; 0 for none.
    pub generation: u32,
    /// Digest of its text.
    pub digest: String,
}

/// A rule, as far as an event names it.
#[derive(Clone, Debug)]
pub struct RuleRef {
    /// Its number in the generation's list.
    pub number: u32,
    /// Its kind.
    pub kind: RuleKind,
    /// The rule, as a person would say it.
    pub text: String,
    /// Why it is there.
    pub reason: Option<String>,
    /// Policy file.
    pub file: String,
    /// Line in it.
    pub line: u32,
}
