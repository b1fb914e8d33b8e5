//! What a program is executed with: its arguments and environment, as they will be in its memory.
//!
//! The kernel has copied them there before it asks, and no task has that memory yet: nothing can change them between the
//! judgement and the program's start, and a call that is held begins again with a new copy.

use agent_guard_common::{
    Fault,
    decide::{self, Command},
    digest::Digest,
    event::ARGS_BYTES,
    subject::Session,
};

use crate::{
    judge::{Generation, Judgement, Parity},
    kernel::{Bprm, Dentry, GO_ON, PAGE, STOP, Task, key_of, memory_page, probe_at, repeat},
    maps::GUARD,
    walk::{make_scratch, scratch},
};

/// Bytes of all arguments, at most: more than the kernel takes (`_STK_LIM / 4 * 3`, fs/exec.c), and the most turns that
/// `bpf_loop` makes.
const MAX_BYTES: u32 = 1 << 23;

/// A reader of that memory.
#[repr(C)]
pub struct Arguments {
    /// The first of its page tables.
    pub tables: u64,
    /// The next byte.
    pub at: u64,
    /// Where the kernel sees the page that is read.
    pub page: u64,
    /// The word that is read.
    pub word: u64,
    /// Not 0 before the first byte.
    pub fresh: u32,
    /// Arguments that have not ended yet.
    pub left: u32,
    /// What reads them, see [`Command`].
    pub state: u32,
    /// A [`Fault`].
    pub fault: u32,
    /// Their beginning, for people: bytes used of `text`.
    pub length: u32,
    /// 1 if there is more.
    pub cut: u32,
    /// See there.
    pub text: [u8; ARGS_BYTES],
}

impl Arguments {
    #[inline(always)]
    fn begin(&mut self, bprm: Bprm) {
        self.tables = bprm.page_tables();
        self.at = bprm.arguments_at();
        self.left = bprm.argument_count();
        self.fresh = 1;
    }

    /// Loads the word with the next byte.
    #[inline(always)]
    fn load(&mut self) -> bool {
        let offset = self.at & (PAGE - 1);
        if self.fresh != 0 || offset == 0 {
            self.page = memory_page(self.tables, self.at);
        }
        self.fresh = 0;
        if self.page == 0 {
            return false;
        }
        match probe_at::<u64>(self.page.wrapping_add(offset & !7)) {
            Some(word) => {
                self.word = word;
                true
            }
            None => false,
        }
    }

    /// The next byte; more than a byte if it can't be read.
    #[inline(always)]
    fn next(&mut self) -> u32 {
        if (self.fresh != 0 || self.at & 7 == 0) && !self.load() {
            self.fault = u32::from(Fault::READ.0);
            return u32::MAX;
        }
        let byte = (self.word >> ((self.at & 7) * 8)) as u32 & 0xff;
        self.at = self.at.wrapping_add(1);
        if byte == 0 {
            self.left = self.left.wrapping_sub(1);
        }
        byte
    }
}

/// A reader and the tables that it reads for.
struct Reading<'a> {
    arguments: &'a mut Arguments,
    parity: u32,
}

/// The decision about a program and its arguments.
#[inline(always)]
pub fn judge(tables: &Generation, session: &Session, bprm: Bprm) -> Judgement {
    let parity = tables.parity();
    let file = bprm.file();
    let program = program(parity, file.path().dentry());
    let profile = session.profile(parity.0);
    let state = arguments_read(profile, program, parity.0, bprm.0);
    if state > u64::from(u32::MAX) {
        return Judgement::fault(Fault((state >> 32) as u8)).forget(session.pad);
    }
    let anonymous = u32::from(file.is_anonymous());
    Judgement(arguments_judge(profile, state as u32, anonymous, parity.0)).forget(session.pad)
}

/// The number that the tables have for a program.
#[inline(always)]
fn program(parity: Parity, dentry: Dentry) -> u32 {
    use agent_guard_common::rules::Tables as _;
    // One that can't be identified is none that rules know; its arguments count all the same.
    key_of(dentry.address()).map_or(0, |key| u32::from(parity.program(&key)))
}

/// Reads all arguments; the state that this ends in, or above it a [`Fault`].
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
fn arguments_read(profile: u32, program: u32, parity: u32, bprm: *const u8) -> u64 {
    let wrong = |fault: Fault| u64::from(fault.0) << 32;
    let state = match Command::begin(&Parity(parity & 1), profile, program as u8) {
        Ok(command) if command.goes_on() => command.state,
        // No rule is about it, whatever the arguments: most programs need no memory here.
        Ok(_) => return 0,
        Err(fault) => return wrong(fault),
    };
    let Some(scratch) = make_scratch() else { return wrong(Fault::MEMORY) };
    let arguments = &mut scratch.arguments;
    arguments.state = state;
    arguments.begin(Bprm(bprm));
    // It ends with no fault only if it comes to its end.
    arguments.fault = u32::from(Fault::READ.0);
    let mut reading = Reading { arguments, parity };
    repeat(MAX_BYTES, step_argument, &mut reading);
    u64::from(reading.arguments.fault) << 32 | u64::from(reading.arguments.state)
}

/// Reads one byte.
extern "C" fn step_argument(_turn: u32, reading: *mut Reading<'_>) -> i64 {
    // SAFETY: the state of `arguments_read`, which waits for us.
    let reading = unsafe { &mut *reading };
    let arguments = &mut *reading.arguments;
    let byte = arguments.next();
    if byte > 0xff {
        return STOP;
    }
    let mut command = Command { state: arguments.state };
    if command.read(&Parity(reading.parity & 1), byte as u8).is_err() {
        arguments.fault = u32::from(Fault::GENERATION.0);
        return STOP;
    }
    arguments.state = command.state;
    if !command.goes_on() || arguments.left == 0 {
        arguments.fault = u32::from(Fault::NONE.0);
        return STOP;
    }
    GO_ON
}

/// Decides, with the state that all arguments have led to.
///
/// VERIFIER: see [`crate::walk::walk_end`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn arguments_judge(profile: u32, state: u32, anonymous: u32, parity: u32) -> u64 {
    let decision = decide::command(&Parity(parity & 1), profile, Command { state }, anonymous != 0);
    Judgement::from(decision).0
}

/// Keeps the beginning of the arguments for people.
#[inline(never)]
pub fn keep(bprm: *const u8) -> u32 {
    let Some(scratch) = make_scratch() else { return 0 };
    let arguments = &mut scratch.arguments;
    arguments.begin(Bprm(bprm));
    arguments.length = 0;
    arguments.cut = 1;
    let mut reading = Reading { arguments, parity: 0 };
    repeat(ARGS_BYTES as u32, step_keep, &mut reading);
    0
}

/// Keeps one byte.
extern "C" fn step_keep(turn: u32, reading: *mut Reading<'_>) -> i64 {
    // SAFETY: the state of `keep`, which waits for us.
    let arguments = unsafe { &mut *(*reading).arguments };
    let byte = arguments.next();
    if byte > 0xff {
        return STOP;
    }
    // VERIFIER: masked, and there are as many turns as bytes.
    if let Some(to) = arguments.text.get_mut(turn as usize & (ARGS_BYTES - 1)) {
        *to = byte as u8;
    }
    arguments.length = (turn & (ARGS_BYTES as u32 - 1)) + 1;
    if arguments.left == 0 {
        arguments.cut = 0;
        return STOP;
    }
    GO_ON
}

/// A digest on its way.
struct Digesting<'a> {
    arguments: &'a mut Arguments,
    digest: Digest,
    end: u64,
}

/// What an answer is about: arguments and environment, word by word, and the directory that the program begins in. 0 if it can't
/// be read.
#[inline(never)]
pub fn digest(bprm: *const u8) -> u64 {
    let bprm = Bprm(bprm);
    let (Some(guard), Some(scratch)) = (GUARD.get(0), scratch()) else { return 0 };
    let Some(directory) = key_of(Task::current().directory()) else { return 0 };
    let arguments = &mut scratch.arguments;
    arguments.begin(bprm);
    arguments.at &= !7;
    arguments.fault = u32::from(Fault::READ.0);
    let digest = Digest::new(guard.key)
        .word(u64::from(arguments.left))
        .word(directory.ino)
        .word(u64::from(directory.dev));
    let mut digesting = Digesting { arguments, digest, end: bprm.environment_end() };
    repeat(MAX_BYTES / 8, step_digest, &mut digesting);
    if digesting.arguments.fault == u32::from(Fault::NONE.0) { digesting.digest.finish() } else { 0 }
}

/// Takes one word in.
extern "C" fn step_digest(_turn: u32, digesting: *mut Digesting<'_>) -> i64 {
    // SAFETY: the state of `digest`, which waits for us.
    let digesting = unsafe { &mut *digesting };
    let arguments = &mut *digesting.arguments;
    if arguments.at >= digesting.end {
        arguments.fault = u32::from(Fault::NONE.0);
        return STOP;
    }
    if !arguments.load() {
        return STOP;
    }
    arguments.at = arguments.at.wrapping_add(8);
    digesting.digest = digesting.digest.word(arguments.word);
    GO_ON
}
