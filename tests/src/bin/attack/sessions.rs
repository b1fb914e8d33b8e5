//! Sessions in numbers: processes that ask for one as `agent-guard run` does, and then do nothing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::Attack;
use crate::sys::{self, args};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[("start-sessions", start_sessions)];

const SOCKET: &str = "/run/agent-guard/control.sock";

/// So many processes, one after another, that each start a session of a profile; number `n` in the directory `DIR/n`, or in
/// `DIR` where that isn't there. Prints how many have one, and what the first one was told that got none, which ends it.
/// Those that have one stay until the standard input ends.
fn start_sessions(a: &[&str]) -> Result<i32> {
    let [profile, count, dir] = args(a)?;
    let count: u32 = count.parse().context("that is no number")?;
    let mut refusal = None;
    let mut started = 0_u32;
    while started < count && refusal.is_none() {
        let (mut here, there) = UnixStream::pair().context("can't make a pair of sockets")?;
        // SAFETY: this program has one thread.
        match unsafe { libc::fork() } {
            -1 => anyhow::bail!("can't fork: {}", std::io::Error::last_os_error()),
            0 => {
                drop(here);
                stay(profile, &format!("{dir}/{started}"), dir, there)
            }
            _ => {}
        }
        drop(there);
        let mut told = String::new();
        here.read_to_string(&mut told).context("can't read from a child")?;
        if told.is_empty() { started += 1 } else { refusal = Some(told) }
    }
    println!("{started} started");
    println!("{}", refusal.unwrap_or_default().replace('\n', " "));
    std::io::stdin().read_to_end(&mut Vec::new()).context("can't wait")?;
    Ok(0)
}

/// The child's side: says why it has no session, or nothing, and stays.
fn stay(profile: &str, dir: &str, otherwise: &str, mut told: UnixStream) -> ! {
    // SAFETY: takes numbers. It ends with its parent.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let there = std::env::set_current_dir(dir).or_else(|_gone| std::env::set_current_dir(otherwise));
    let refusal = match there.context("no directory").and_then(|()| start(profile)) {
        Ok(refusal) => refusal,
        Err(error) => Some(format!("{error:#}")),
    };
    if let Some(refusal) = refusal {
        drop(told.write_all(refusal.as_bytes()));
        sys::exit(1);
    }
    drop(told);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Asks for a session for this process. Answers what it was told if it gets none.
fn start(profile: &str) -> Result<Option<String>> {
    let stat = std::fs::read_to_string("/proc/self/stat").context("can't read /proc/self/stat")?;
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let start: u64 =
        fields.split_whitespace().nth(19).and_then(|field| field.parse().ok()).context("no start")?;
    let body = json!({
        "profile": profile, "command": ["sleep"], "cwd": "/", "pid": std::process::id(), "start_time": start,
    })
    .to_string();
    let mut stream = UnixStream::connect(SOCKET).context("can't connect")?;
    write!(
        stream,
        "POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
    .context("can't ask")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).context("no answer")?;
    let good = answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2'));
    Ok((!good).then_some(answer))
}
