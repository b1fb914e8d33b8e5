//! A blocking client of the control socket: one request, one connection, no threads.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    api::{ApiError, Problem},
    config::SESSION_SOCKET,
};

/// Largest head of an answer.
const MAX_HEAD: u64 = 64 * 1024;
/// Largest answer that is read as a whole.
const MAX_ANSWER: u64 = 256 << 20;
/// How long the daemon may be silent.
const PATIENCE: Duration = Duration::from_secs(130);

/// Why the daemon didn't answer, or answered no.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket, or nobody listens.
    #[error("agent-guard daemon is not running (no socket at {}): systemctl start agent-guard", socket.display())]
    NoDaemon {
        /// Where it should be.
        socket: PathBuf,
    },
    /// The kernel refuses sessions the control socket.
    #[error(
        "not permitted from inside an agent session, which can read itself and start sessions within itself; ask a \
             person outside of it"
    )]
    Inside,
    /// The socket's file permissions.
    #[error("{}: permission denied; who may use the socket is set by its folder's owner and mode", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
    },
    /// The socket can't be connected for another reason.
    #[error("{}: {source}", socket.display())]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The connection broke.
    #[error("the connection to the daemon broke: {source}; see journalctl -u agent-guard")]
    Talk {
        /// Why.
        source: io::Error,
    },
    /// The answer isn't one of agent-guard.
    #[error("the daemon's answer can't be understood: {what}; do daemon and command have the same version?")]
    Answer {
        /// What is wrong.
        what: String,
    },
    /// The daemon says no.
    #[error(transparent)]
    Api(#[from] ApiError),
}

fn talk(source: io::Error) -> ClientError {
    ClientError::Talk { source }
}

fn odd(what: impl Into<String>) -> ClientError {
    ClientError::Answer { what: what.into() }
}

/// The daemon's socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
    /// Whether what is asked makes sense inside of a session.
    inside: bool,
}

impl Client {
    /// The daemon behind a socket.
    #[must_use]
    pub const fn new(socket: PathBuf) -> Self {
        Self { socket, inside: false }
    }

    /// The same for what sessions can ask: where the control socket is refused to them, over the one that is theirs.
    #[must_use]
    pub fn or_inside(self, inside: bool) -> Self {
        Self { inside, ..self }
    }

    /// The socket for sessions.
    #[must_use]
    pub fn session_socket(&self) -> PathBuf {
        self.socket.with_file_name(SESSION_SOCKET)
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects. The descriptor isn't inherited by programs that are executed.
    ///
    /// # Errors
    ///
    /// If nobody listens or the caller may not connect.
    pub fn connect(&self) -> Result<UnixStream, ClientError> {
        self.connect_or_inside().map(|(stream, _)| stream)
    }

    /// The same, and whether that is the socket for sessions.
    ///
    /// # Errors
    ///
    /// As above.
    pub fn connect_or_inside(&self) -> Result<(UnixStream, bool), ClientError> {
        match connect(&self.socket) {
            Err(ClientError::Inside) if self.inside => Ok((connect(&self.session_socket())?, true)),
            other => other.map(|stream| (stream, false)),
        }
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// If the daemon can't be reached or says no.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        whole(self.request("GET", path, None)?)
    }

    /// Has something done.
    ///
    /// # Errors
    ///
    /// If the daemon can't be reached or says no.
    pub fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        self.post_on(self.connect()?, path, body)
    }

    /// Has something done over a connection that is there already. It is closed when this returns.
    ///
    /// # Errors
    ///
    /// If the connection breaks or the daemon says no.
    pub fn post_on<T: DeserializeOwned>(
        &self,
        stream: UnixStream,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| odd(error.to_string()))?;
        whole(exchange(stream, "POST", path, Some(&body))?)
    }

    /// Reads lines until there are no more or `take` says that it has enough.
    ///
    /// # Errors
    ///
    /// If the daemon can't be reached, says no, or the connection breaks.
    pub fn lines(
        &self,
        path: &str,
        mut take: impl FnMut(&str) -> io::Result<bool>,
    ) -> Result<io::Result<()>, ClientError> {
        let answer = self.request("GET", path, None)?;
        if answer.status != 200 {
            return Err(refusal(answer));
        }
        answer.body.stream.get_ref().set_read_timeout(None).map_err(talk)?;
        let mut lines = BufReader::new(answer.body);
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = (&mut lines).take(MAX_ANSWER).read_until(b'\n', &mut line).map_err(talk)?;
            if read == 0 {
                return Ok(Ok(()));
            }
            match take(String::from_utf8_lossy(&line).trim_end_matches('\n')) {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn request(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, ClientError> {
        exchange(self.connect()?, method, path, body)
    }
}

fn connect(socket: &Path) -> Result<UnixStream, ClientError> {
    UnixStream::connect(socket).map_err(|source| {
        let socket = socket.to_owned();
        match source.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
            Some(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => {
                ClientError::NoDaemon { socket }
            }
            // EPERM comes from the guard's own hook, EACCES from the file's mode.
            Some(rustix::io::Errno::PERM) => ClientError::Inside,
            Some(rustix::io::Errno::ACCESS) => ClientError::Denied { socket },
            _ => ClientError::Connect { socket, source },
        }
    })
}

/// The head of an answer, and its body to be read.
struct Answer {
    status: u16,
    body: Body,
}

fn exchange(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    body: Option<&[u8]>,
) -> Result<Answer, ClientError> {
    stream.set_read_timeout(Some(PATIENCE)).map_err(talk)?;
    stream.set_write_timeout(Some(PATIENCE)).map_err(talk)?;
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: agent-guard\r\nAccept: application/json\r\nConnection: close\r\n"
    );
    if let Some(body) = body {
        request.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    request.push_str("\r\n");
    let mut bytes = request.into_bytes();
    bytes.extend_from_slice(body.unwrap_or_default());
    stream.write_all(&bytes).map_err(talk)?;
    head(BufReader::new(stream))
}

fn head(mut stream: BufReader<UnixStream>) -> Result<Answer, ClientError> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        let room = MAX_HEAD.saturating_sub(u64::try_from(text.len()).unwrap_or(MAX_HEAD));
        if (&mut stream).take(room).read_until(b'\n', &mut text).map_err(talk)? == 0 {
            return Err(odd("its head ends early"));
        }
    }
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut response = httparse::Response::new(&mut headers);
    response.parse(&text).map_err(|error| odd(format!("its head: {error}")))?;
    let status = response.code.ok_or_else(|| odd("its head has no status"))?;
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok().map(str::trim)
    };
    let framing = match (header("transfer-encoding"), header("content-length")) {
        (Some(coding), _) if coding.eq_ignore_ascii_case("chunked") => {
            Framing::Chunked { left: 0, first: true }
        }
        (Some(coding), _) => return Err(odd(format!("its transfer coding {coding}"))),
        (None, Some(length)) => {
            Framing::Length(length.parse().map_err(|_error| odd(format!("its length {length}")))?)
        }
        (None, None) => Framing::Close,
    };
    Ok(Answer { status, body: Body { stream, framing } })
}

/// How much of the connection is body.
enum Framing {
    Length(u64),
    Chunked { left: u64, first: bool },
    Close,
    End,
}

struct Body {
    stream: BufReader<UnixStream>,
    framing: Framing,
}

impl Body {
    /// Reads the size line of the next chunk.
    fn chunk(&mut self, first: bool) -> io::Result<u64> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let mut line = String::new();
        if !first {
            (&mut self.stream).take(2).read_line(&mut line)?;
            if line != "\r\n" {
                return Err(bad("a chunk doesn't end where it should"));
            }
            line.clear();
        }
        (&mut self.stream).take(1024).read_line(&mut line)?;
        let size = line.split([';', '\r', '\n']).next().unwrap_or_default().trim();
        let size = u64::from_str_radix(size, 16).map_err(|_error| bad("a chunk has no size"))?;
        if size == 0 {
            // The trailer; nobody needs it.
            while (&mut self.stream).take(MAX_HEAD).read_line(&mut line)? > 0 && !line.ends_with("\n\r\n") {}
        }
        Ok(size)
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Framing::Chunked { left: 0, first } = self.framing {
            let left = self.chunk(first)?;
            self.framing = if left == 0 { Framing::End } else { Framing::Chunked { left, first: false } };
        }
        let left = match self.framing {
            Framing::Length(left) | Framing::Chunked { left, .. } => left,
            Framing::Close => return self.stream.read(into),
            Framing::End => return Ok(0),
        };
        let read = (&mut self.stream).take(left).read(into)?;
        let less = left.saturating_sub(u64::try_from(read).unwrap_or(left));
        if read == 0 && left > 0 && !into.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.framing = match self.framing {
            Framing::Length(_) => Framing::Length(less),
            _ => Framing::Chunked { left: less, first: false },
        };
        Ok(read)
    }
}

fn read_all(body: Body) -> Result<Vec<u8>, ClientError> {
    let mut text = Vec::new();
    body.take(MAX_ANSWER + 1).read_to_end(&mut text).map_err(talk)?;
    if u64::try_from(text.len()).is_ok_and(|length| length > MAX_ANSWER) {
        return Err(odd("it is too long"));
    }
    Ok(text)
}

fn whole<T: DeserializeOwned>(answer: Answer) -> Result<T, ClientError> {
    if !(200..300).contains(&answer.status) {
        return Err(refusal(answer));
    }
    let text = read_all(answer.body)?;
    serde_json::from_slice(&text).map_err(|error| odd(error.to_string()))
}

fn refusal(answer: Answer) -> ClientError {
    let status = answer.status;
    match read_all(answer.body) {
        Ok(text) => match serde_json::from_slice::<Problem>(&text) {
            Ok(problem) => ClientError::Api(problem.into()),
            Err(_error) => odd(format!("status {status} without an explanation")),
        },
        Err(error) => error,
    }
}

/// A text as part of a query (RFC 3986).
#[must_use]
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests;
