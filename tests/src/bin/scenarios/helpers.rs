//! Helpers outside, at their Unix sockets: they are reached only if the network rules name them.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::io::FdFlags;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::Scenario;
use crate::fixture::event::Mark;
use crate::fixture::guard::{CHANGES, json, policy, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{PROD, remove};
use crate::fixture::{Guard, Hold, PROFILE, SOON, Server, World, same, stays, text, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("helpers_unix", "sockets of helpers by every way, streams, packets and datagrams", unix),
    Scenario::direct("helpers_abstract", "abstract names, whole ones and beginnings", abstracts).on("6.18"),
    Scenario::direct("helpers_own", "a server that the session has started is its own, others aren't", own),
    Scenario::direct("helpers_hold", "a connection to a helper waits for people", hold).on("7.2"),
];

/// Somebody who listens outside of sessions.
struct Helper {
    at: String,
    socket: Socket,
    stream: bool,
}

impl Helper {
    fn new(at: &str, kind: Type) -> Result<Self> {
        let name = at.strip_prefix("unix:").context("that is no Unix socket")?;
        let path = match name.strip_prefix('@') {
            Some(name) => format!("\0{name}"),
            None => {
                let above = Path::new(name).parent().context("that is no path")?;
                fs::create_dir_all(above).with_context(|| format!("can't create {}", above.display()))?;
                remove(Path::new(name))?;
                name.to_owned()
            }
        };
        let socket = Socket::new(Domain::UNIX, kind, None).context("can't make a socket")?;
        socket.bind(&SockAddr::unix(path)?).with_context(|| format!("can't bind to {at}"))?;
        let stream = kind != Type::DGRAM;
        if stream {
            socket.listen(64).with_context(|| format!("can't listen on {at}"))?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self { at: at.to_owned(), socket, stream })
    }

    fn stream(at: &str) -> Result<Self> {
        Self::new(at, Type::STREAM)
    }

    fn datagram(at: &str) -> Result<Self> {
        Self::new(at, Type::DGRAM)
    }

    /// Takes whatever has arrived; says whether anything had.
    fn arrived(&self) -> bool {
        let mut any = false;
        while if self.stream {
            self.socket.accept().is_ok()
        } else {
            (&self.socket).read(&mut [0; 8]).is_ok()
        } {
            any = true;
        }
        any
    }
}

/// A daemon, and processes inside and outside.
struct Lab {
    guard: Guard,
    inside: Server,
    outside: Server,
    _world: World,
}

impl Lab {
    fn new(network: &str) -> Result<Self> {
        let world = World::new()?;
        let guard = Guard::start(&Self::policy(network))?;
        let (inside, outside) = (Server::inside(&guard)?, Server::outside()?);
        Ok(Self { guard, inside, outside, _world: world })
    }

    fn policy(network: &str) -> String {
        policy(&(rule(PROD, CHANGES, "deny") + &format!("[profile.{PROFILE}.network]\n{network}\n")))
    }

    /// It works outside and arrives; inside it fails, nothing arrives, and an event says what and where.
    fn denied(&mut self, attempt: &str, helper: &Helper, is: &str) -> Result<()> {
        helper.arrived();
        self.outside.expect(attempt, "ok")?;
        until(&format!("{attempt} from outside arrives"), SOON, || Ok(helper.arrived().then_some(())))?;
        let mark = self.guard.events.mark()?;
        self.inside.expect(attempt, "EPERM")?;
        stays(&format!("{attempt}: nothing arrives"), Duration::from_millis(40), || Ok(!helper.arrived()))?;
        self.told(mark, attempt, helper, is)
    }

    fn told(&mut self, mark: Mark, attempt: &str, helper: &Helper, is: &str) -> Result<()> {
        let event = self.guard.events.wait(mark, attempt, |event| event.judged("deny"))?;
        same(&format!("{attempt}: operation"), event.field("operation").as_str(), "connect")?;
        same(&format!("{attempt}: class and activity"), event.class(), (4001, 1))?;
        same(&format!("{attempt}: to"), text(&event.0, "/dst_endpoint/name"), is)?;
        let (field, value) = match is.strip_prefix("unix:@") {
            Some(name) => ("abstract_name", name),
            None => ("path", is.trim_start_matches("unix:")),
        };
        same(&format!("{attempt}: {field}"), event.field(field).as_str(), value)?;
        let hook = if helper.stream { "unix_stream_connect" } else { "unix_may_send" };
        same(&format!("{attempt}: hook"), event.field("hook").as_str(), hook)
    }

    fn allowed(&mut self, attempt: &str, helper: &Helper) -> Result<()> {
        helper.arrived();
        self.inside.expect(attempt, "ok")?;
        until(&format!("{attempt} arrives"), SOON, || Ok(helper.arrived().then_some(())))
    }

    /// What was allowed must not have been told.
    fn quiet(&mut self, mark: Mark) -> Result<()> {
        self.guard.settle()?;
        self.guard.events.none(mark, "allowed, but an event", |event| event.own("operation") == "connect")
    }
}

fn explains(to: &str, verdict: &str) -> Result<()> {
    let asked = json(&["policy", "explain", "--profile", PROFILE, "--connect", to])?;
    same(&format!("what explain says of {to}"), text(&asked, "/verdict"), verdict)
}

const DOCKER: &str = "unix:/run/docker.sock";

fn unix() -> Result<()> {
    let allowed = "connect = \"deny\"\nallow = [\"unix:/run/allowed/**\", \"unix:/run/one.sock\", \"unix:${cwd}/open/**\"]\n\
                   report = [\"unix:/run/told.sock\"]";
    let mut lab = Lab::new(allowed)?;
    // Some are where a session may change all files.
    let helpers = [
        DOCKER,
        "unix:/run/podman/podman.sock",
        "unix:/run/containerd/containerd.sock",
        "unix:/run/libvirt/libvirt-sock",
        "unix:/tmp/tmux-0/default",
        "unix:/tmp/.X11-unix/X0",
        "unix:/srv/work/agent.sock",
    ];
    let helpers = helpers.map(Helper::stream).into_iter().collect::<Result<Vec<_>>>()?;
    for helper in &helpers {
        lab.denied(&format!("connect {}", helper.at), helper, &helper.at)?;
        explains(&helper.at, "deny")?;
    }
    let docker = helpers.first().context("there is no helper")?;
    ways(&mut lab, docker, DOCKER)?;
    let packets = Helper::new("unix:/run/packets.sock", Type::SEQPACKET)?;
    lab.denied("connect-seqpacket unix:/run/packets.sock", &packets, &packets.at)?;
    datagrams(&mut lab)?;

    let mark = lab.guard.events.mark()?;
    let (one, deep) = (Helper::stream("unix:/run/one.sock")?, Helper::stream("unix:/run/allowed/a/b.sock")?);
    for helper in [&one, &deep] {
        lab.allowed(&format!("connect {}", helper.at), helper)?;
        lab.allowed(&format!("uring async connect {}", helper.at), helper)?;
        explains(&helper.at, "allow")?;
    }
    let cwd = Helper::stream("unix:/srv/work/open/x.sock")?;
    lab.allowed(&format!("connect {}", cwd.at), &cwd)?;
    lab.quiet(mark)?;
    let told = Helper::stream("unix:/run/told.sock")?;
    lab.allowed(&format!("connect {}", told.at), &told)?;
    lab.guard
        .events
        .wait(mark, "the report", |event| event.judged("report") && event.about("/run/told.sock"))?;
    // What leaves the directory isn't in it any more.
    fs::rename("/run/allowed/a/b.sock", "/run/elsewhere.sock").context("can't move a socket")?;
    lab.denied("connect unix:/run/elsewhere.sock", &deep, "unix:/run/elsewhere.sock")?;

    // A rule is about the socket that is there, whatever it is called then.
    lab.guard.reload(&Lab::policy("connect = \"allow\"\ndeny = [\"unix:/run/docker.sock\"]"))?;
    ways(&mut lab, docker, DOCKER)?;
    lab.allowed("connect unix:/tmp/tmux-0/default", helpers.get(4).context("there is no tmux")?)?;
    fs::rename("/run/docker.sock", "/run/renamed.sock").context("can't rename the socket")?;
    lab.denied("connect unix:/run/renamed.sock", docker, "unix:/run/renamed.sock")?;
    let again = Helper::stream(DOCKER)?;
    lab.denied(&format!("connect {DOCKER}"), &again, DOCKER)?;
    lab.guard.stop()
}

/// Other names and other calls.
fn ways(lab: &mut Lab, helper: &Helper, is: &str) -> Result<()> {
    let path = is.strip_prefix("unix:").context("that is no Unix socket")?;
    for link in ["/srv/work/link", "/run/hard.sock", "/srv/work/bound"] {
        remove(Path::new(link))?;
    }
    std::os::unix::fs::symlink(path, "/srv/work/link").context("can't make a link")?;
    fs::hard_link(path, "/run/hard.sock").context("can't make a hard link")?;
    let bound = Mounted::bind("/run", "/srv/work/bound")?;
    let name = path.strip_prefix("/run/").context("it isn't in /run")?;
    for attempt in [
        format!("connect unix:/srv/../run/./{name}"),
        "connect unix:/srv/work/link".to_owned(),
        "connect unix:/run/hard.sock".to_owned(),
        format!("connect unix:/srv/work/bound/{name}"),
        format!("connect unix:/proc/self/root{path}"),
        format!("connect-opath {is}"),
        "connect-opath unix:/srv/work/link".to_owned(),
        format!("connect-at {is}"),
        format!("uring plain connect {is}"),
        format!("uring async connect {is}"),
        format!("uring sqpoll connect {is}"),
    ] {
        lab.denied(&attempt, helper, is)?;
    }
    drop(bound);
    fs::remove_file("/run/hard.sock").context("can't remove the hard link")
}

fn datagrams(lab: &mut Lab) -> Result<()> {
    let log = Helper::datagram("unix:/run/helper/log")?;
    let open = Helper::datagram("unix:/run/allowed/log")?;
    for attempt in [
        "connect-udp unix:/run/helper/log",
        "sendto unix:/run/helper/log",
        "sendmsg unix:/run/helper/log",
        "sendto-connected unix:/run/allowed/log unix:/run/helper/log",
        "sendmmsg unix:/run/allowed/log unix:/run/helper/log",
        "connect-again-udp unix:/run/allowed/log unix:/run/helper/log",
        "uring plain sendmsg unix:/run/helper/log",
        "uring async sendmsg unix:/run/helper/log",
    ] {
        lab.denied(attempt, &log, "unix:/run/helper/log")?;
    }
    for attempt in ["connect-udp unix:/run/allowed/log", "sendto unix:/run/allowed/log"] {
        lab.allowed(attempt, &open)?;
    }
    inherited_datagrams(lab, &log)
}

/// A socket that was connected before the session sends no message either.
fn inherited_datagrams(lab: &mut Lab, log: &Helper) -> Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None).context("can't make a socket")?;
    socket.connect(&SockAddr::unix("/run/helper/log")?).context("can't connect")?;
    let (mut inside, mut outside, fd) = heirs(&lab.guard, &socket)?;
    log.arrived();
    let attempt = format!("send-connected {fd}");
    outside.expect(&attempt, "ok")?;
    until("the message from outside arrives", SOON, || Ok(log.arrived().then_some(())))?;
    let mark = lab.guard.events.mark()?;
    inside.expect(&attempt, "EPERM")?;
    lab.told(mark, &attempt, log, "unix:/run/helper/log")
}

/// A process inside and one outside that inherit a socket, and its number.
fn heirs(guard: &Guard, socket: &Socket) -> Result<(Server, Server, i32)> {
    use std::os::fd::AsRawFd;
    rustix::io::fcntl_setfd(socket, FdFlags::empty()).context("can't hand a socket on")?;
    let heirs = (Server::inside(guard)?, Server::outside()?, socket.as_raw_fd());
    rustix::io::fcntl_setfd(socket, FdFlags::CLOEXEC).context("can't keep a socket")?;
    Ok(heirs)
}

fn abstracts() -> Result<()> {
    let network =
        "connect = \"deny\"\nallow = [\"unix:@good\", \"unix:@begin/*\"]\ndeny = [\"unix:@begin/not\"]";
    let mut lab = Lab::new(network)?;
    for name in ["unix:@bad", "unix:@goodness", "unix:@goo", "unix:@begin", "unix:@begin/not"] {
        let helper = Helper::stream(name)?;
        lab.denied(&format!("connect {name}"), &helper, name)?;
        explains(name, "deny")?;
    }
    let helper = Helper::new("unix:@packets", Type::SEQPACKET)?;
    lab.denied("connect-seqpacket unix:@packets", &helper, &helper.at)?;
    let helper = Helper::datagram("unix:@log")?;
    for attempt in
        ["connect-udp unix:@log", "sendto unix:@log", "sendmsg unix:@log", "uring async sendmsg unix:@log"]
    {
        lab.denied(attempt, &helper, "unix:@log")?;
    }
    let long = format!("unix:@{}", "x".repeat(107));
    let helper = Helper::stream(&long)?;
    lab.denied(&format!("connect {long}"), &helper, &long)?;

    let mark = lab.guard.events.mark()?;
    for name in ["unix:@good", "unix:@begin/", "unix:@begin/x", "unix:@begin/nothing"] {
        let helper = Helper::stream(name)?;
        lab.allowed(&format!("connect {name}"), &helper)?;
        explains(name, "allow")?;
    }
    let helper = Helper::datagram("unix:@begin/log")?;
    lab.allowed("sendto unix:@begin/log", &helper)?;
    lab.quiet(mark)?;
    lab.guard.reload(&Lab::policy("connect = \"deny\"\nallow = [\"unix:@*\"]"))?;
    let helper = Helper::stream("unix:@bad")?;
    lab.allowed("connect unix:@bad", &helper)?;
    lab.guard.stop()
}

fn own() -> Result<()> {
    let mut lab = Lab::new("connect = \"deny\"")?;
    let mark = lab.guard.events.mark()?;
    for kind in ["stream", "seqpacket", "dgram"] {
        for at in ["unix:/srv/work/own.sock", "unix:@own"] {
            lab.outside.expect(&format!("own-unix {kind} {at}"), "ok")?;
            lab.inside.expect(&format!("own-unix {kind} {at}"), "ok")?;
        }
    }
    lab.inside.expect("listen-unix stream unix:/srv/work/mine.sock", "ok")?;
    lab.inside.expect("listen-unix dgram unix:@mine", "ok")?;
    lab.inside.expect("connect unix:/srv/work/mine.sock", "ok")?;
    lab.inside.expect("uring async connect unix:/srv/work/mine.sock", "ok")?;
    lab.inside.expect("sendto unix:@mine", "ok")?;
    lab.quiet(mark)?;
    // Another session's are nobody's own.
    let mut other = Server::inside(&lab.guard)?;
    for (attempt, what) in
        [("connect unix:/srv/work/mine.sock", "/srv/work/mine.sock"), ("sendto unix:@mine", "mine")]
    {
        lab.outside.expect(attempt, "ok")?;
        let mark = lab.guard.events.mark()?;
        other.expect(attempt, "EPERM")?;
        lab.guard.events.wait(mark, attempt, |event| {
            event.judged("deny")
                && [event.field("path"), event.field("abstract_name")].contains(&what.to_owned())
        })?;
    }
    // What listens already when the session begins isn't its own, whoever has a descriptor.
    let helper = Helper::stream("unix:/srv/work/handed.sock")?;
    helper.socket.set_nonblocking(false)?;
    let (mut inside, mut outside, fd) = heirs(&lab.guard, &helper.socket)?;
    let attempt = format!("accept-inherited {fd} {}", helper.at);
    outside.expect(&attempt, "ok")?;
    let mark = lab.guard.events.mark()?;
    inside.expect(&attempt, "EPERM")?;
    lab.told(mark, &attempt, &helper, &helper.at)?;
    lab.guard.stop()
}

fn hold() -> Result<()> {
    let mut lab = Lab::new(
        "connect = \"deny\"\nhold = [\"unix:/run/docker.sock\", \"unix:/run/helper/**\", \"unix:@ask*\"]",
    )?;
    let (docker, name) = (Helper::stream(DOCKER)?, Helper::stream("unix:@ask-me")?);
    let log = Helper::datagram("unix:/run/helper/log")?;
    let pid = lab.inside.process().pid();
    for (attempt, helper, path, address) in [
        (format!("connect {DOCKER}"), &docker, "/run/docker.sock", ""),
        ("connect unix:@ask-me".to_owned(), &name, "", "unix:@ask-me"),
        ("sendto unix:/run/helper/log".to_owned(), &log, "/run/helper/log", ""),
    ] {
        lab.outside.expect(&attempt, "ok")?;
        until(&format!("{attempt} from outside arrives"), SOON, || Ok(helper.arrived().then_some(())))?;
        for approved in [true, false] {
            lab.inside.send(&attempt)?;
            let hold = Hold::of(pid)?;
            hold.is("connect", path)?;
            same("the held address", text(&hold.0, "/address"), address)?;
            anyhow::ensure!(!helper.arrived(), "{attempt} has arrived before anybody was asked");
            if approved {
                hold.approve()?
            } else {
                hold.deny()?
            };
            let answer = lab.inside.answer()?;
            same(&attempt, answer.as_str(), if approved { "ok" } else { "EPERM" })?;
            if approved {
                until(&format!("{attempt} arrives"), SOON, || Ok(helper.arrived().then_some(())))?;
            }
            anyhow::ensure!(!helper.arrived(), "{attempt} has arrived once more");
        }
    }
    // What can't wait is denied.
    let mark = lab.guard.events.mark()?;
    lab.inside.expect(&format!("uring plain connect {DOCKER}"), "EPERM")?;
    let event = lab.guard.events.wait(mark, "io_uring", |event| event.judged("deny"))?;
    anyhow::ensure!(
        !event.field("fault").is_empty(),
        "the event doesn't say why it wasn't held: {}",
        event.0
    );
    anyhow::ensure!(!docker.arrived(), "it has arrived all the same");
    lab.guard.stop()
}
