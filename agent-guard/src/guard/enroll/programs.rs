//! Programs that are enrolled by what they are: the kernel asks when such a file is opened to be executed, and whoever executes it
//! waits until its session is there.

use std::{
    fs,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Component, Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use agent_guard_common::{Fault, Op, Source, Verdict, enroll::Seat, event::Hook};

use super::{
    super::{
        Guard, State,
        attach::same_directory,
        lock,
        sessions::{internal, who},
    },
    Asking, Reservation, relative,
};
use crate::{
    api::{
        backend::Peer,
        error::{ApiError, Code},
        types::{Origin, StartSession, Time},
    },
    events::activity::{Activity, Decided, Event, FileRef, Judged, Object, SessionStarted},
    policy::{
        By, Diagnostic, Policy, RuleInfo, explain_enrollment,
        model::{Form, Part},
    },
    session::{Session, proc},
    sys::{self, fanotify::Question, judge::Judge},
};

/// How often a session is made anew because the policy was loaded meanwhile.
const ATTEMPTS: u32 = 3;

/// The guard's own program can't be enrolled: it would wait for itself.
pub(super) fn mistakes(policy: &Policy) -> Vec<Diagnostic> {
    let Ok(own) = fs::read_link("/proc/self/exe") else { return Vec::new() };
    let mut mistakes = Vec::new();
    for (_, target) in policy.enrolled().filter(|(entry, _)| entry.by == By::Exe) {
        let path = target.rule.as_ref().map(|rule| &rule.path.form);
        if path.is_some_and(|form| names(form, &own)) {
            let message =
                format!("`{}` is, or has, the guard's own program ({})", target.text, own.display());
            mistakes.push(
                Diagnostic::error(&target.origin, message)
                    .help("name the programs that are to become sessions"),
            );
        }
    }
    mistakes
}

/// Whether a path names a file or a directory above it; as it is written, or with links followed as far as there are no stars.
fn names(form: &Form, file: &Path) -> bool {
    let Form::Below(_, parts) = form else { return false };
    let matches = |parts: &[Part]| {
        let names: Vec<_> = file.components().skip(1).map(Component::as_os_str).collect();
        parts.len() <= names.len()
            && parts.iter().zip(names).all(|(part, name)| match part {
                Part::Any => true,
                Part::Name(part) => name == part.as_str(),
            })
    };
    let plain: Option<PathBuf> = parts.iter().try_fold(PathBuf::from("/"), |path, part| match part {
        Part::Name(name) => Some(path.join(name)),
        Part::Any => None,
    });
    let real = plain.and_then(|plain| fs::canonicalize(plain).ok());
    matches(parts) || real.is_some_and(|real| file.starts_with(real))
}

/// What becomes of somebody who is about to execute a program.
enum Reserved {
    /// There is a seat, or none is needed.
    Yes,
    /// No rule names the program.
    Unnamed,
    /// The policy was loaded anew meanwhile.
    Again,
}

/// Why a program isn't executed.
struct Refused {
    why: ApiError,
    rule: Option<Box<RuleInfo>>,
}

impl Guard {
    /// Makes a session for a process that is about to execute a program, if the policy says so; whether it may go on.
    pub(super) fn enroll_program(&self, asking: &Asking, question: &Question) -> bool {
        let pid = question.process.as_ref().map(|process| sys::pid_of(process.as_fd()));
        let pid = match pid {
            Some(Ok(Some(pid))) => pid,
            // It has ended.
            None | Some(Ok(None)) => return false,
            Some(Err(error)) => {
                self.say_not_executed(question, 0, Path::new(""), None, &internal(error));
                return false;
            }
        };
        let path = match fs::read_link(format!("/proc/self/fd/{}", question.file.as_raw_fd())) {
            Ok(path) => path,
            Err(error) => {
                self.say_not_executed(question, pid, Path::new(""), None, &internal(error));
                return false;
            }
        };
        let mut settled = false;
        for _ in 0..ATTEMPTS {
            match self.reserve(question, pid, &path) {
                Ok(Reserved::Yes) => return true,
                Ok(Reserved::Unnamed) if settled => return true,
                // It is asked about because a name leads there, perhaps only now: then the policy is about to know.
                Ok(Reserved::Unnamed) => {
                    drop(asking.settle());
                    settled = true;
                }
                Ok(Reserved::Again) => {}
                Err(Refused { why, rule }) => {
                    self.say_not_executed(question, pid, &path, rule.as_deref(), &why);
                    return false;
                }
            }
        }
        let why = ApiError::new(Code::Unavailable, "the policy was loaded anew again and again meanwhile");
        self.say_not_executed(question, pid, &path, None, &why);
        false
    }

    fn reserve(&self, question: &Question, pid: u32, path: &Path) -> Result<Reserved, Refused> {
        let plain = |why: ApiError| Refused { why, rule: None };
        let Some(process) = &question.process else { return Ok(Reserved::Yes) };
        // A session's own programs are judged; one that has a seat was asked about before.
        let tagged = lock(&self.maps).tag_of(process.as_fd()).map_err(internal).map_err(plain)?;
        let name = relative(pid).map_err(internal).map_err(plain)?;
        if tagged.is_some() || lock(&self.maps).has_seat(&name).map_err(internal).map_err(plain)? {
            return Ok(Reserved::Yes);
        }
        let mut state = lock(&self.state);
        let Some(rule) = self.rule_about(&state, path).map_err(plain)? else { return Ok(Reserved::Unnamed) };
        let refused = |why| Refused { why, rule: Some(Box::new(rule.clone())) };
        let (generation, mut session) =
            self.describe_program(&state, question, pid, path, &rule).map_err(refused)?;
        self.bind(&mut state, &mut session).map_err(refused)?;
        if let Err(why) = self.begin(&session) {
            self.unbind(&mut state, session.binding);
            return Err(refused(why));
        }
        drop(state);
        let judged = self.judge_inherited(pid, &session);
        let mut state = lock(&self.state);
        let current = state.in_force.as_ref().is_some_and(|in_force| in_force.generation == generation);
        let seat = Seat { session: session.number, slot: session.slot, rule: rule.number };
        let reserved = judged.and_then(|()| {
            if current { lock(&self.maps).reserve(&name, &seat).map_err(internal) } else { Ok(()) }
        });
        if reserved.is_err() || !current {
            self.abandon(&mut state, &session);
        } else {
            state.enrolled.seats.insert(session.number, Reservation { process: name, since: Instant::now() });
            state.sessions.insert(session.number, session);
        }
        reserved.map(|()| if current { Reserved::Yes } else { Reserved::Again }).map_err(refused)
    }

    /// The rule that enrolls a file, as the kernel side would find it.
    fn rule_about(&self, state: &State, path: &Path) -> Result<Option<RuleInfo>, ApiError> {
        let Some(in_force) = &state.in_force else { return Ok(None) };
        explain_enrollment(&in_force.compiled.view(), &self.fs, path)
            .map_err(|error| ApiError::new(Code::Unavailable, error.to_string()))
    }

    fn describe_program(
        &self,
        state: &State,
        question: &Question,
        pid: u32,
        path: &Path,
        rule: &RuleInfo,
    ) -> Result<(u32, Session), ApiError> {
        let profile = rule.profile.clone().unwrap_or_default();
        let (generation, index, mode) = state.profile(&profile)?;
        let stat = proc::stat(pid).map_err(internal)?;
        let (uid, gid) = proc::ids(pid).unwrap_or_default();
        let process =
            question.process.as_ref().ok_or_else(|| internal(std::io::Error::other("no process")))?;
        let pidfd = process.try_clone().map_err(internal)?;
        let peer = Peer { uid, gid, pid, pidfd: Arc::new(pidfd) };
        let request = StartSession {
            profile: None,
            task: None,
            name: None,
            command: vec![path.to_string_lossy().into_owned()],
            cwd: proc::cwd(pid).unwrap_or_default(),
            pid,
            start_time: stat.start,
        };
        let mut session = self.describe(state, &peer, pid, (profile, index, mode), request)?;
        session.origin = Origin::Enroll;
        session.started_by = who(uid, Some(pid));
        if state.has_own_paths(&session.profile) {
            same_directory(&session)?;
        }
        Ok((generation, session))
    }

    /// Refuses if the program would inherit what the session couldn't open.
    fn judge_inherited(&self, pid: u32, session: &Session) -> Result<(), ApiError> {
        let judge = Judge::start().map_err(internal)?;
        let _stand_in = self.stand_in(session, judge.process())?;
        let said = judge.look(&["--inherited".to_owned(), pid.to_string()]).map_err(internal)?;
        let findings: Vec<String> = serde_json::from_slice(&said).map_err(internal)?;
        if findings.is_empty() {
            return Ok(());
        }
        let detail = format!(
            "{}. Profile {} wouldn't let a session have that: execute the program without it, or allow it in the policy",
            findings.join("; "),
            session.profile
        );
        Err(ApiError::new(Code::Unavailable, detail))
    }

    /// An enrolled program runs.
    pub(super) fn say_enrolled(&self, state: &State, number: u64) {
        let Some(session) = state.sessions.get(&number) else { return };
        self.log.say(Activity::SessionStarted(SessionStarted {
            actor: state.actor_of_root(session),
            policy: state.policy_ref(),
            command: session.command.clone(),
            cwd: session.cwd.clone(),
            origin: session.origin,
            attached: Vec::new(),
            parent: None,
        }));
    }

    fn say_not_executed(
        &self,
        question: &Question,
        pid: u32,
        path: &Path,
        rule: Option<&RuleInfo>,
        why: &ApiError,
    ) {
        let path = path.to_string_lossy().into_owned();
        tracing::error!(
            pid,
            path,
            why = why.detail,
            "a program must be in a session, which could not be made; it isn't executed"
        );
        let state = lock(&self.state);
        let (dev, ino, mode) =
            rustix::fs::fstat(&question.file).map_or((0, 0, 0), |of| (of.st_dev, of.st_ino, of.st_mode));
        let file = FileRef {
            path,
            cut: false,
            dev: format!("{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev)),
            ino,
            mode,
        };
        let policy = state.policy_ref();
        let process = state.processes.by_number(pid);
        let said = Judged {
            actor: state.actor(&process),
            decision: Decided {
                rule: rule.and_then(|rule| state.rule_ref(policy.generation, rule.number)),
                policy,
                operation: Op::ENROLL,
                object: Object::File(file, None),
                policy_verdict: Verdict::DENY,
                source: Source::ENROLL,
                fault: Fault::NO_SESSION,
                hook: Hook::BPRM_CREDS_FOR_EXEC,
                errno: -libc::EPERM,
            },
            verdict: Verdict::DENY,
            hold: None,
        };
        self.log.append(&Event::at(Time::now(), Activity::Judged(said)));
    }
}
