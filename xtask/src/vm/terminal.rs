//! The host's terminal, while a guest has it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr};

use super::machine::Sink;
use super::payload::Size;

/// A terminal in raw mode, put back when this is dropped.
pub(crate) struct Raw(Option<Termios>);

impl Raw {
    /// Switches stdin's terminal, if it is one.
    pub(crate) fn enter() -> Result<Self> {
        let stdin = std::io::stdin();
        if !isatty(&stdin) {
            return Ok(Self(None));
        }
        let before = tcgetattr(&stdin).context("can't read the terminal's modes")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(&stdin, OptionalActions::Now, &raw).context("can't set the terminal's modes")?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            tcsetattr(std::io::stdin(), OptionalActions::Now, before).ok();
        }
    }
}

/// Whether stdout is a terminal.
pub(crate) fn on_terminal() -> bool {
    isatty(std::io::stdout())
}

/// The terminal's size, or the usual one where there is no terminal.
pub(crate) fn size() -> Size {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 && size.ws_col > 0 => Size { rows: size.ws_row, cols: size.ws_col },
        _ => Size { rows: 24, cols: 80 },
    }
}

/// Carries a job's output to our own stdout and stderr, and what is typed to its terminal.
pub(crate) struct Passthrough {
    /// Whether what is typed goes to the guest.
    pub(crate) typing: bool,
}

impl Sink for Passthrough {
    fn out(&mut self, bytes: &[u8]) -> Result<()> {
        write(&mut std::io::stdout().lock(), bytes)
    }

    fn err(&mut self, bytes: &[u8]) -> Result<()> {
        write(&mut std::io::stderr().lock(), bytes)
    }

    fn terminal(&mut self, bytes: &[u8]) -> Result<()> {
        write(&mut std::io::stdout().lock(), bytes)
    }

    fn connected(&mut self, mut terminal: UnixStream, mut control: UnixStream) {
        if !self.typing {
            return;
        }
        // Both end with the process: nothing waits for them.
        std::thread::spawn(move || {
            let mut known = size();
            loop {
                std::thread::sleep(Duration::from_millis(300));
                let now = size();
                if now != known {
                    known = now;
                    let line = format!("{{\"rows\":{},\"cols\":{}}}\n", now.rows, now.cols);
                    if control.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                }
            }
        });
        std::thread::spawn(move || {
            let mut stdin = std::io::stdin().lock();
            let mut buffer = [0_u8; 4096];
            loop {
                let typed = match stdin.read(&mut buffer) {
                    // The end of a pipe is what Ctrl-D is on a terminal.
                    Ok(0) | Err(_) => return drop(terminal.write_all(&[4])),
                    Ok(count) => buffer.get(..count).unwrap_or_default(),
                };
                if terminal.write_all(typed).is_err() {
                    return;
                }
            }
        });
    }
}

fn write(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    to.write_all(bytes).and_then(|()| to.flush()).context("can't write the guest's output")
}
