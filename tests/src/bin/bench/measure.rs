//! The process that is measured. It says `ready`, then answers each line it reads with the instructions of one
//! batch; between two batches its parent has time to put things in order.

use std::io::{BufRead, StdinLock, Write};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::confine;
use crate::ops::{Doing, Op};

/// `OP CONFINEMENT DIR EXPECTED`: confinement is `none`, `landlock` or `notify`, expected an errno, 0 for success.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let &[op, confinement, dir, expected] = args else {
        bail!("usage: bench measure OP CONFINEMENT DIR EXPECTED")
    };
    let op = Op::from_name(op).with_context(|| format!("there is no operation {op}"))?;
    let expected: i32 = expected.parse().context("that is no errno")?;
    let mut doing = Doing::new(op, dir, expected != 0)?;
    let mut lines = std::io::stdin().lock();
    match confinement {
        "none" => {}
        "landlock" => confine::landlock()?,
        "notify" => {
            let listener = confine::notify()?;
            say(&format!("listener {}", listener.as_raw_fd()))?;
            // From here on the supervisor has it: if that ends, calls fail instead of waiting for ever.
            if !told(&mut lines)? {
                return Ok(());
            }
        }
        other => bail!("there is no confinement {other}"),
    }
    say("ready")?;
    while told(&mut lines)? {
        let spent = batch(&mut doing, op, expected)
            .with_context(|| format!("{} in {dir} ({confinement})", op.name()))?;
        say(&spent.as_nanos().to_string())?;
    }
    Ok(())
}

fn batch(doing: &mut Doing, op: Op, expected: i32) -> Result<Duration> {
    let (warm_up, times) = (op.warm_up(), op.times());
    doing.prepare(warm_up + times)?;
    // Who woke us goes to sleep meanwhile.
    std::thread::sleep(op.pause());
    for turn in 0..warm_up {
        check(doing.once(turn), expected)?;
    }
    let begun = Instant::now();
    for turn in warm_up..warm_up + times {
        check(doing.once(turn), expected)?;
    }
    Ok(begun.elapsed())
}

fn check(errno: i32, expected: i32) -> Result<()> {
    if errno == expected {
        return Ok(());
    }
    bail!("it ended in {} instead of {}", ::tests::errno_name(errno), ::tests::errno_name(expected))
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("can't write to the parent")
}

/// Waits for a line; false at the end.
fn told(lines: &mut StdinLock<'_>) -> Result<bool> {
    let mut line = String::new();
    Ok(lines.read_line(&mut line).context("can't read from the parent")? > 0)
}
