//! What is mounted changes under a policy that is in force.
//!
//! Most hooks know the mount that an object was reached through, and judge by what it is mounted on. Those for times,
//! extended attributes and access control lists know the object's own file system only: what the policy says of it because
//! of where it is mounted has to be in the tables. So the policy is applied anew when mounts come and go, with nothing read
//! from disk.

use std::{
    fs::File,
    os::fd::AsFd as _,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    Guard, lock,
    policy::{Refused, assigned, digest},
};
use crate::policy;

/// The mounts that the daemon sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// What tells of mounts that come and go from now on.
///
/// # Errors
///
/// If it can't be opened.
pub fn open() -> std::io::Result<File> {
    File::open(MOUNTS)
}

/// How long to wait for more of the same.
const SETTLE: Duration = Duration::from_millis(20);
/// Whoever mounts again and again keeps the daemon at work for one part in so many.
const REST: u32 = 4;

impl Guard {
    /// Applies the policy in force anew whenever mounts have come or gone since `mounts` was opened, until it is told to
    /// stop.
    ///
    /// # Errors
    ///
    /// If mounts can't be watched.
    pub fn watch_mounts(&self, mounts: &File, stop: &AtomicBool) -> std::io::Result<()> {
        // The kernel tells of changes since the file was opened or last polled (`mounts_poll`, fs/proc_namespace.c).
        let wait = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
        while !stop.load(Ordering::Relaxed) {
            let mut fds = [PollFd::from_borrowed_fd(mounts.as_fd(), PollFlags::PRI)];
            match poll(&mut fds, Some(&wait)) {
                Ok(0) | Err(Errno::INTR) => continue,
                Ok(_) => {}
                Err(error) => return Err(error.into()),
            }
            std::thread::sleep(SETTLE);
            let begin = Instant::now();
            self.mounts_changed();
            std::thread::sleep(begin.elapsed().saturating_mul(REST).min(Duration::from_secs(60)));
        }
        Ok(())
    }

    /// Applies the policy in force to what is mounted now. If that can't be done, what was in force stays: by it nothing
    /// becomes milder, because what a mount hides is judged as before and what it shows through the mount point.
    fn mounts_changed(&self) {
        let mut state = lock(&self.state);
        let Some(in_force) = &state.in_force else { return };
        let (policy, before, current) =
            (in_force.policy.clone(), state.policy_ref(), digest(&in_force.compiled));
        let sessions = self.session_paths(&state);
        let built = policy::build(&policy, &self.fs, &assigned(&state), self.key, &sessions);
        let done = match built {
            Ok(compiled) if digest(&compiled) == current => return,
            Ok(compiled) => self.put_in_force(&mut state, policy, compiled),
            Err(diagnostics) => Err(Refused::Invalid(diagnostics)),
        };
        match done {
            Ok(in_force) => {
                state.in_force = Some(in_force);
                tracing::info!("mounts have changed: the policy in force was applied to them");
                state.holds.values().filter(|hold| hold.open()).for_each(|hold| self.nudge(hold));
                self.say_reloaded(&state, None, before);
            }
            Err(refused) => {
                tracing::error!(%refused, "mounts have changed, and the policy in force can't be applied to them");
                self.say_refused(&mut state, None, &refused);
            }
        }
    }
}
