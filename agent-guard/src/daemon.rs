//! Wires the daemon, and does nothing else.

use std::{
    fs,
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};
use sd_notify::NotifyState;
use tokio::{
    net::UnixListener,
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    api::server,
    config::Config,
    events::{EventLog, log, ocsf::Host},
    guard::{Guard, Refused, check},
    kernel::{enforcement::Enforcement, host, load, maps::Maps, support},
};

/// How often the thread that reads records looks at everything else.
const SWEEP: Duration = Duration::from_millis(250);

/// The policy is invalid and there is none that could stay in force.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InvalidPolicy(String);

/// Runs the daemon until it is told to stop.
///
/// # Errors
///
/// If it can't start, or stops for another reason than being told to.
pub fn main(config: &Path) -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env()
                .unwrap_or_else(|_none| tracing_subscriber::EnvFilter::new("info")),
        )
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .init();
    let config = Config::read(config)?;
    let (btf, tier) = support::check()?;
    if let Some(why) = tier.why() {
        tracing::warn!("{why}");
    }
    let _lock = only_one(&config.state)?;
    if load::adoptable(&config.pins) {
        tracing::info!("taking over what is pinned below {}", config.pins.display());
    } else {
        // Nothing is in force yet, so a bad policy needn't leave anything behind.
        check(&config, &Enforcement::of_kernel(&btf, &host::Host::this(), &tier)).map_err(invalid)?;
    }
    let attached = load::load(&config.pins)?;
    let log = Arc::new(
        EventLog::open(
            log::Options { state: Some(config.state.clone()), ..log::Options::new(&config.events) },
            Host::this(),
        )
        .context("the event log can't be opened")?,
    );
    let guard = Arc::new(Guard::new(config.clone(), attached, log)?);
    guard.first_policy().map_err(invalid)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&config, &guard))
}

fn invalid(refused: Refused) -> anyhow::Error {
    match refused {
        Refused::Kernel(error) => error.into(),
        refused => anyhow!(InvalidPolicy(refused.to_string())),
    }
}

/// Holds a lock for as long as the daemon runs.
fn only_one(state: &Path) -> anyhow::Result<fs::File> {
    fs::create_dir_all(state).with_context(|| format!("can't make {}", state.display()))?;
    fs::set_permissions(state, fs::Permissions::from_mode(0o755))?;
    let path = state.join("lock");
    let file = fs::File::create(&path).with_context(|| format!("can't open {}", path.display()))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|_taken| {
        anyhow!("another agent-guard daemon is already running (it has locked {})", path.display())
    })?;
    Ok(file)
}

async fn run(config: &Config, guard: &Arc<Guard>) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let (listener, inside) = listen(config, guard)?;
    let workers = Worker::all(guard)?;
    let (stop, stopped) = watch::channel(false);
    let sessions = server::serve(inside, guard.inside(), server::MOST_OF_SESSIONS, told(stopped.clone()));
    let control = server::serve(listener, Arc::clone(guard) as Arc<_>, server::MOST, told(stopped));
    let mut server = tokio::spawn(async { tokio::try_join!(control, sessions) });
    guard.start_resolver().context("sessions could not ask for names")?;
    guard.say_started();
    notify(&[NotifyState::Ready]);
    tracing::info!(socket = %config.socket.display(), "ready");
    let mut look = tokio::time::interval(Duration::from_secs(1));
    let reason = loop {
        tokio::select! {
            _ = look.tick() => {
                if let Some(worker) = workers.iter().find(|worker| worker.thread.is_finished()) {
                    break Err(anyhow!("the thread `{}` has ended", worker.thread.thread().name().unwrap_or_default()));
                }
                if !guard.resolver_runs() {
                    break Err(anyhow!("the resolver has ended"));
                }
            }
            _ = hangup.recv() => reload(guard).await,
            _ = terminate.recv() => break Ok("SIGTERM"),
            _ = interrupt.recv() => break Ok("SIGINT"),
            ended = &mut server => break match ended {
                Ok(Err(error)) => Err(anyhow!(error).context("the API server has stopped")),
                _ => Err(anyhow!("the API server has stopped")),
            },
        }
    };
    notify(&[NotifyState::Stopping]);
    if stop.send(true).is_ok() && !server.is_finished() {
        // Streams may be open; who reads them has had their time then.
        let _in_time = tokio::time::timeout(Duration::from_secs(3), server).await;
    }
    guard.stop_resolver();
    workers.into_iter().for_each(Worker::stop);
    guard.say_stopped(
        reason.as_ref().map_or_else(ToString::to_string, |reason| (*reason).to_owned()).as_str(),
    );
    for socket in [&config.socket, &config.session_socket()] {
        if let Err(error) = fs::remove_file(socket) {
            tracing::debug!(%error, "the socket");
        }
    }
    reason.map(|_| ())
}

async fn told(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender has gone, which is as good.
    let _told = stopped.wait_for(|stop| *stop).await;
}

/// SIGHUP: the policy and the event log's file.
async fn reload(guard: &Arc<Guard>) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let usec = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
    notify(&[NotifyState::Reloading, NotifyState::MonotonicUsec(usec)]);
    let guard = Arc::clone(guard);
    let done = tokio::task::spawn_blocking(move || {
        if let Err(error) = guard.log().reopen() {
            tracing::error!(%error, "the event log can't be opened anew");
        }
        // It says itself what it thinks of the policy.
        let _said = guard.reload_policy(None);
    });
    if let Err(error) = done.await {
        tracing::error!(%error, "the reload has failed");
    }
    notify(&[NotifyState::Ready]);
}

/// Tells systemd, if it wants to know.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::warn!(%error, "systemd can't be told");
    }
}

/// Opens the control socket and the one for sessions. The kernel learns which objects they are before anybody else can connect.
fn listen(config: &Config, guard: &Guard) -> anyhow::Result<(UnixListener, UnixListener)> {
    let (path, inside) = (&config.socket, &config.session_socket());
    let listeners = (listen_at(path)?, listen_at(inside)?);
    guard.set_sockets(path, inside)?;
    // Everybody may connect; what they may do is decided by who they are.
    open_to_all(path)?;
    open_to_all(inside)?;
    Ok(listeners)
}

/// A socket that nobody but root can connect to yet.
fn listen_at(path: &Path) -> anyhow::Result<UnixListener> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).with_context(|| format!("can't make {}", directory.display()))?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("can't replace {}", path.display()));
        }
        _ => {}
    }
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    listener.with_context(|| format!("can't listen on {}", path.display()))
}

fn open_to_all(path: &Path) -> anyhow::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        .with_context(|| format!("can't change the mode of {}", path.display()))
}

/// A thread of the daemon's.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Worker {
    fn start(name: &str, work: impl FnOnce(&AtomicBool) + Send + 'static) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || work(&flag))?;
        Ok(Self { stop, thread })
    }

    /// All of them, in the order in which they are stopped: records are read to the end.
    fn all(guard: &Arc<Guard>) -> anyhow::Result<[Self; 3]> {
        let records = Self::records(guard)?;
        let (witness, enroll) = (Arc::clone(guard), Arc::clone(guard));
        Ok([
            Self::start("witness", move |stop| witness.watch_own(stop))?,
            Self::start("enroll", move |stop| enroll.answer_questions(stop))?,
            records,
        ])
    }

    /// Reads the rings.
    fn records(guard: &Arc<Guard>) -> anyhow::Result<Self> {
        let (rings, guard) = (Rings::open(guard)?, Arc::clone(guard));
        Self::start("records", move |stop| read(&guard, rings, stop))
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Err(panic) = self.thread.join() {
            tracing::error!(?panic, "a thread has panicked");
        }
    }
}

/// What the kernel side writes.
struct Rings {
    decisions: RingBuf<MapData>,
    reports: RingBuf<MapData>,
    /// What its programs log by themselves.
    log: Option<EbpfLogger<&'static dyn ::log::Log>>,
}

fn read(guard: &Guard, mut rings: Rings, stop: &AtomicBool) {
    let mut swept = Instant::now();
    let wait = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
    while !stop.load(Ordering::Relaxed) {
        let mut fds = [&rings.decisions, &rings.reports]
            .map(|ring| PollFd::from_borrowed_fd(ring.as_fd(), PollFlags::IN));
        if let Err(error) = poll(&mut fds, Some(&wait))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "waiting for records");
            std::thread::sleep(SWEEP);
        }
        let all = rings.drain(guard, || stop.load(Ordering::Relaxed));
        if swept.elapsed() >= SWEEP {
            guard.sweep(all);
            swept = Instant::now();
        }
    }
    let end = Instant::now() + LAST;
    let all = rings.drain(guard, || Instant::now() > end);
    guard.sweep(all);
}

/// How long a daemon that ends still takes records in. Who goes on making some doesn't keep it from ending: the rings are
/// pinned, and what is left in them is for the next one.
const LAST: Duration = Duration::from_secs(2);

/// Records of a kind that are taken in before the other kind, and everything else, gets its turn.
const TURN: usize = 4096;

impl Rings {
    fn open(guard: &Guard) -> anyhow::Result<Self> {
        let [decisions, reports] = Maps::rings(guard.map_pins())?;
        let log = load::logger(guard.attached())
            .inspect_err(|error| tracing::warn!(%error, "what the kernel side logs can't be read"))
            .ok();
        Ok(Self { decisions, reports, log })
    }

    /// Takes in what there is; false if that was too much for one turn. What a process was and ran before a decision was
    /// reported before it, so after a decision has been seen, and before it is taken in, the reports are. Ends early once it is
    /// `over`.
    fn drain(&mut self, guard: &Guard, over: impl Fn() -> bool) -> bool {
        if let Some(log) = &mut self.log {
            log.flush();
        }
        let reports = take(guard, &mut self.reports, &over);
        let mut decisions = 0;
        while decisions < TURN
            && !over()
            && let Some(record) = self.decisions.next()
        {
            let decision = record.to_vec();
            drop(record);
            take(guard, &mut self.reports, &over);
            guard.record(&decision);
            decisions += 1;
        }
        reports < TURN && decisions < TURN && !over()
    }
}

fn take(guard: &Guard, reports: &mut RingBuf<MapData>, over: impl Fn() -> bool) -> usize {
    let mut taken = 0;
    while taken < TURN
        && !over()
        && let Some(record) = reports.next()
    {
        guard.record(&record);
        taken += 1;
    }
    taken
}
