//! Names: asked for as the C library does it, and as somebody would who makes packets of their own.
//!
//! These attempts answer a text instead of an errno.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hickory_proto::op::{Message, MessageType, Query};
use hickory_proto::rr::{DNSClass, Name, RData, RecordType};

use crate::Question;
use crate::sys::args;

pub(crate) const QUESTIONS: &[(&str, Question)] = &[
    ("resolve", resolve),
    ("connect-name", connect_name),
    ("ask", ask),
    ("ask-many", ask_many),
    ("ask-oddly", ask_oddly),
];

/// Longer than a resolver takes that gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// The C library's complaint about a name, in a word.
fn complaint(error: &std::io::Error) -> String {
    let text = error.to_string();
    if let Some(errno) = error.raw_os_error() {
        return tests::errno_name(errno);
    }
    // `gai_strerror` of EAI_NONAME, EAI_NODATA and EAI_AGAIN.
    for (part, word) in
        [("not known", "unknown"), ("No address", "no-address"), ("Temporary failure", "try-again")]
    {
        if text.contains(part) {
            return word.to_owned();
        }
    }
    text
}

/// `resolve NAME`: its addresses by the C library, sorted, or why not.
fn resolve(a: &[&str]) -> Result<String> {
    let [name] = args(a)?;
    Ok(match (name, 0).to_socket_addrs() {
        Ok(addresses) => {
            let mut all: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            all.sort();
            all.dedup();
            all.join(" ")
        }
        Err(error) => complaint(&error),
    })
}

/// `connect-name NAME PORT`, as programs do it: one address after another.
fn connect_name(a: &[&str]) -> Result<String> {
    let [name, port] = args(a)?;
    let port: u16 = port.parse().context("that is no port")?;
    Ok(match TcpStream::connect((name, port)) {
        Ok(_) => "ok".to_owned(),
        Err(error) => complaint(&error),
    })
}

fn query(name: &str, kind: &str) -> Result<Message> {
    let name = Name::from_ascii(name).with_context(|| format!("{name:?} is no name"))?;
    let kind = match kind {
        "ANY" => RecordType::ANY,
        "IXFR" => RecordType::IXFR,
        other => other.parse().ok().with_context(|| format!("{other:?} is no type of records"))?,
    };
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, kind));
    Ok(message)
}

/// A transport's outcome: an answer, or a word.
type Got = Result<Message, String>;

/// Sends a question and waits for its answer. `udp` takes an answer from anybody, and says so if that isn't who was asked:
/// resolvers such as musl's drop those.
fn exchange(how: &str, server: SocketAddr, question: &Message) -> Result<Got> {
    let bytes = question.to_vec().context("the question can't be written")?;
    let got = match how {
        "udp" => over_udp(server, &bytes, false),
        "udp-connected" => over_udp(server, &bytes, true),
        "tcp" => over_tcp(server, &bytes),
        other => bail!("{other} is none of udp, udp-connected and tcp"),
    };
    let (bytes, from) = match got {
        Ok(got) => got,
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(Err("silence".to_owned())),
        Err(error) => return Ok(Err(complaint(&error))),
    };
    if from != server {
        return Ok(Err(format!("answered-by {from}")));
    }
    let answer = Message::from_vec(&bytes).context("the answer can't be read")?;
    let fits =
        answer.metadata.message_type == MessageType::Response && answer.metadata.id == question.metadata.id;
    anyhow::ensure!(fits, "this is no answer to what was asked: {answer:?}");
    Ok(Ok(answer))
}

fn over_udp(server: SocketAddr, question: &[u8], connected: bool) -> std::io::Result<(Vec<u8>, SocketAddr)> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; 4096];
    let (count, from) = if connected {
        socket.connect(server)?;
        socket.send(question)?;
        (socket.recv(&mut buffer)?, socket.peer_addr()?)
    } else {
        socket.send_to(question, server)?;
        socket.recv_from(&mut buffer)?
    };
    buffer.truncate(count);
    Ok((buffer, from))
}

/// With the two bytes of length before each message (RFC 1035, 4.2.2).
fn over_tcp(server: SocketAddr, question: &[u8]) -> std::io::Result<(Vec<u8>, SocketAddr)> {
    let mut stream = TcpStream::connect(server)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u16::try_from(question.len()).unwrap_or(u16::MAX);
    stream.write_all(&[length.to_be_bytes().as_slice(), question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok((answer, stream.peer_addr()?))
}

/// An answer in one line: its code, then what the records say, sorted.
fn describe(got: Got) -> String {
    let answer = match got {
        Ok(answer) => answer,
        Err(word) => return word,
    };
    let mut all: Vec<String> = answer
        .answers
        .iter()
        .map(|record| match &record.data {
            RData::A(address) => address.to_string(),
            RData::AAAA(address) => address.to_string(),
            other => format!("{}:{other}", record.record_type()),
        })
        .collect();
    all.sort();
    let cut = if answer.metadata.truncation { " truncated" } else { "" };
    let code = format!("{:?}{cut}", answer.metadata.response_code);
    std::iter::once(code).chain(all).collect::<Vec<_>>().join(" ")
}

fn server(text: &str) -> Result<SocketAddr> {
    text.parse().with_context(|| format!("{text:?} is no address with a port"))
}

/// `ask udp|udp-connected|tcp SERVER NAME TYPE`.
fn ask(a: &[&str]) -> Result<String> {
    let [how, to, name, kind] = args(a)?;
    Ok(describe(exchange(how, server(to)?, &query(name, kind)?)?))
}

/// So many names below one, each with LENGTH random letters before it: `ask-many SERVER COUNT LENGTH BELOW`. How many were
/// answered with an address, and how many not.
fn ask_many(a: &[&str]) -> Result<String> {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    let [to, count, length, below] = args(a)?;
    let (to, count, length) = (server(to)?, count.parse::<u32>()?, length.parse::<usize>()?);
    let mut random = tests::Random::new(std::process::id().into());
    let (mut answered, mut refused) = (0, 0);
    for _ in 0..count {
        let letters = std::iter::repeat_with(|| random.pick(LETTERS).copied().map_or('a', char::from));
        let text: Vec<char> = letters.take(length).collect();
        let labels: Vec<String> = text.chunks(63).map(|label| label.iter().collect()).collect();
        let question = query(&format!("{}.{below}", labels.join(".")), "A")?;
        match exchange("udp", to, &question)? {
            Ok(answer) if !answer.answers.is_empty() => answered += 1,
            Ok(_) => refused += 1,
            Err(word) => bail!("{word} after {answered} answers and {refused} refusals"),
        }
    }
    Ok(format!("{answered} {refused}"))
}

/// What isn't a question as people ask it: `ask-oddly udp|tcp SERVER NAME HOW`.
fn ask_oddly(a: &[&str]) -> Result<String> {
    let [how, to, name, what] = args(a)?;
    let mut message = query(name, "A")?;
    match what {
        "chaos" => message.queries.iter_mut().for_each(|query| {
            query.set_query_class(DNSClass::CH);
        }),
        "two" => {
            let second = Query::query(Name::from_ascii("other.example.test")?, RecordType::A);
            message.add_query(second);
        }
        "none" => message.queries.clear(),
        "update" => message.metadata.op_code = hickory_proto::op::OpCode::Update,
        "notify" => message.metadata.op_code = hickory_proto::op::OpCode::Notify,
        other => bail!("nobody asks in the way {other:?}"),
    }
    Ok(describe(exchange(how, server(to)?, &message)?))
}
