//! The sink to systemd's journal, in its native protocol
//! (<https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>).

use std::{
    io,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use super::sink::{Line, Sink};

/// Where journald listens.
pub const SOCKET: &str = "/run/systemd/journal/socket";

/// Entries above this go without the event itself, which is in the log file: a datagram has a limit.
const LARGEST: usize = 180 * 1024;

/// The journal.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    socket: UnixDatagram,
}

impl Journal {
    /// The journal behind a socket. It need not be there yet.
    ///
    /// # Errors
    ///
    /// If no socket can be made.
    pub fn new(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        // A journal that hangs must not hang the guard.
        socket.set_nonblocking(true)?;
        Ok(Self { path: path.to_owned(), socket })
    }

    fn send(&self, entry: &[u8]) -> io::Result<()> {
        self.socket.send_to(entry, &self.path).map(drop)
    }
}

impl Sink for Journal {
    fn name(&self) -> &'static str {
        "journal"
    }

    fn write(&mut self, line: &Line) -> io::Result<()> {
        if line.json.len() <= LARGEST {
            match self.send(&entry(line, true)) {
                Err(error) if error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error()) => {}
                other => return other,
            }
        }
        self.send(&entry(line, false))
    }
}

/// An entry; without the event where that is too long.
fn entry(line: &Line, whole: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(line.json.len() + 512);
    field(&mut out, "MESSAGE", &line.message);
    field(&mut out, "PRIORITY", priority(line.severity));
    field(&mut out, "SYSLOG_IDENTIFIER", "agent-guard");
    if let Some(verdict) = &line.verdict {
        field(&mut out, "AGENT_GUARD_VERDICT", verdict);
    }
    if let Some(session) = line.session {
        field(&mut out, "AGENT_GUARD_SESSION", &session.to_string());
    }
    if let Some(sequence) = line.sequence {
        field(&mut out, "AGENT_GUARD_SEQUENCE", &sequence.to_string());
    }
    if whole {
        field(&mut out, "AGENT_GUARD_EVENT", &line.json);
    } else {
        field(&mut out, "AGENT_GUARD_EVENT_CUT", "1");
    }
    out
}

/// A field; the form with a length where the value has a line break, so that no value can pretend to
/// be another field.
fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        out.push(b'\n');
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// syslog's priority of a `severity_id`.
const fn priority(severity: u64) -> &'static str {
    match severity {
        0 | 1 => "6",
        2 => "5",
        3 => "4",
        4 => "3",
        _ => "2",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::Time;

    fn line(message: &str, json: String) -> Line {
        Line {
            json,
            sequence: Some(9),
            time: Time(1),
            session: None,
            verdict: Some("deny".to_owned()),
            message: message.to_owned(),
            severity: 3,
            decision: true,
        }
    }

    #[test]
    fn fields_can_not_be_forged() {
        let entry = entry(&line("delete /x\nPRIORITY=0", "{}".to_owned()), true);
        let text = String::from_utf8_lossy(&entry);
        assert!(text.starts_with("MESSAGE\n\u{14}\0\0\0\0\0\0\0delete /x\nPRIORITY=0\nPRIORITY=4\n"));
        assert!(text.ends_with("AGENT_GUARD_EVENT={}\n"));
    }

    #[test]
    fn reaches_a_socket() {
        let dir = std::env::temp_dir().join(format!("agent-guard-journal-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("socket");
        let mut journal = Journal::new(&path).unwrap();
        let short = line("short", "{}".to_owned());
        assert!(journal.write(&short).is_err(), "nobody listens");
        let server = UnixDatagram::bind(&path).unwrap();
        journal.write(&short).unwrap();
        journal.write(&line("long", "x".repeat(LARGEST + 1))).unwrap();
        let mut buffer = vec![0; 4096];
        let read = server.recv(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..read]).contains("AGENT_GUARD_EVENT={}"));
        let read = server.recv(&mut buffer).unwrap();
        assert!(String::from_utf8_lossy(&buffer[..read]).contains("AGENT_GUARD_EVENT_CUT=1"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
