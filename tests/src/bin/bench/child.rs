//! The measured process, as its parent sees it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// A process that is measured, and the supervisor that it may have.
pub(crate) struct Measured {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
    supervisor: Option<Child>,
}

impl Measured {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start the process to measure")?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("it has no stdout")?);
        let mut measured = Self { child, stdin, stdout, supervisor: None };
        let mut line = measured.hear()?;
        if let Some(fd) = line.strip_prefix("listener ") {
            let fd = fd.to_owned();
            measured.supervise(&fd)?;
            measured.tell()?;
            line = measured.hear()?;
        }
        ensure!(line == "ready", "the measured process said {line:?}");
        Ok(measured)
    }

    /// Has it do a batch; the answer is the number of instructions.
    pub(crate) fn batch(&mut self) -> Result<u64> {
        self.tell()?;
        let line = self.hear()?;
        line.parse().with_context(|| format!("the measured process said {line:?}"))
    }

    /// Ends it, which must go well.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.child.wait().context("can't wait for the measured process")?;
        ensure!(status.success(), "the measured process ended badly ({status})");
        Ok(())
    }

    fn supervise(&mut self, fd: &str) -> Result<()> {
        let me = std::env::current_exe().context("can't find this program")?;
        let mut supervisor = Command::new(me)
            .args(["supervise", &self.child.id().to_string(), fd])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("can't start the supervisor")?;
        let stdout = supervisor.stdout.take().context("it has no stdout")?;
        self.supervisor = Some(supervisor);
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).context("can't hear the supervisor")?;
        ensure!(line.trim() == "ready", "the supervisor said {line:?}");
        Ok(())
    }

    fn tell(&mut self) -> Result<()> {
        let stdin = self.stdin.as_mut().context("it has no stdin")?;
        stdin.write_all(b"\n").context("can't tell the measured process to go on")
    }

    fn hear(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line).context("can't hear the measured process")? == 0 {
            bail!("the measured process has ended before it was told to");
        }
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        // Whatever still runs then has no more to say.
        for process in self.supervisor.iter_mut().chain(std::iter::once(&mut self.child)) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}
