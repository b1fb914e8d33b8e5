//! Programs that agents use: what is allowed works as ever, what isn't fails at once, with a message that says why.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, PROGRAM, policy_of, rule};
use crate::fixture::net::lab::{list, section};
use crate::fixture::net::web::{AUTHORITY, PLACE, Ssh, Web};
use crate::fixture::net::{Lan, Names, ONE, Zone};
use crate::fixture::process::run;
use crate::fixture::world::{PROD, WORK, directory};
use crate::fixture::{Finished, Guard, PROFILE, World, contains};
use crate::workloads;

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct(
        "network_clients",
        "curl, git, ssh and pip reach what is allowed, and say clearly what isn't",
        clients,
    )
    .thorough(),
    Scenario::direct("network_clients_cargo", "and so does cargo", fetches).thorough().with_disk("toolchain"),
];

/// Where the disk of tools is.
const TOOLS: &str = "/srv/toolchain";
/// Names that rules allow, and one that they don't.
const ALLOWED: [&str; 4] =
    ["web.example.test", "git.example.test", "pypi.example.test", "crates.example.test"];
const SHUT: &str = "shut.example.test";
/// Where Python's package installer is in the guest.
const PIP: &str = "/opt/pip";
/// What the C library says of a name that isn't answered.
const UNKNOWN: &str = "Name or service not known";

/// A command line, and the environment that it needs.
struct Line {
    words: Vec<String>,
    variables: Vec<(&'static str, String)>,
}

fn line(text: &str) -> Line {
    Line {
        words: text.split(' ').map(str::to_owned).collect(),
        variables: vec![("HOME", "/tmp/home".into())],
    }
}

impl Line {
    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.variables.push((name, value.into()));
        self
    }

    /// The same with other words in it.
    fn instead(&self, from: &str, to: &str) -> Self {
        Self {
            words: self.words.iter().map(|word| word.replace(from, to)).collect(),
            variables: self.variables.clone(),
        }
    }

    /// Not longer than two minutes: what is denied must not wait for anything, and some take one to start on an emulated processor.
    fn run(&self, within: &[&str]) -> Result<Finished> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let words = [within, &["timeout", "120"], &words].concat();
        let (first, rest) = words.split_first().context("no words")?;
        let mut command = Command::new(first);
        command.args(rest).current_dir(WORK).stdin(std::process::Stdio::null());
        run(command.envs(self.variables.iter().map(|(name, value)| (name, value))))
    }

    fn outside(&self) -> Result<Finished> {
        self.run(&[])
    }

    fn inside(&self) -> Result<Finished> {
        self.run(&[PROGRAM, "run", "--profile", PROFILE, "--"])
    }

    /// It works outside, and inside, where it says that.
    fn works(&self, says: &str) -> Result<()> {
        self.outside_afresh()?.good()?.says(says).context("outside")?;
        self.inside_afresh()?.good()?.says(says).context("inside").map(|_done| ())
    }

    /// Takes away what it has made, and makes what it needs.
    fn prepare(&self) -> Result<()> {
        if self.words.iter().any(|word| word == "chroot") { program() } else { fresh() }
    }

    fn outside_afresh(&self) -> Result<Finished> {
        self.prepare()?;
        self.outside()
    }

    fn inside_afresh(&self) -> Result<Finished> {
        self.prepare()?;
        self.inside()
    }

    /// It works outside; inside it fails before long, and says why in some such words.
    fn fails(&self, words: &str) -> Result<()> {
        self.outside_afresh()?.good().context("outside")?;
        self.fails_inside(words)
    }

    /// The same where others have shown that it works outside: some programs take long to start.
    fn fails_inside(&self, words: &str) -> Result<()> {
        let done = self.inside_afresh()?;
        ensure!(!done.status.success(), "inside it must fail: {}", done.summary());
        // What `timeout` says.
        ensure!(done.status.code() != Some(124), "it took too long: {}", done.summary());
        contains(&format!("what {} says", done.what), &(done.stdout.clone() + &done.stderr), words)
    }
}

/// What clients leave.
fn fresh() -> Result<()> {
    for dir in ["/tmp/home", "/tmp/made"] {
        crate::fixture::world::remove(std::path::Path::new(dir))?;
        directory(dir)?;
    }
    Ok(())
}

/// A program that needs what only the registry has.
fn program() -> Result<()> {
    let work = format!("{TOOLS}/work/fetch");
    crate::fixture::world::remove(std::path::Path::new(&work))?;
    fs::create_dir_all(format!("{work}/src")).with_context(|| format!("can't make {work}"))?;
    fs::write(
        format!("{work}/Cargo.toml"),
        "[package]\nname = \"fetch\"\nversion = \"0.1.0\"\nedition = \"2021\"\n\n[dependencies]\ntiny = \"0.1\"\n\n[workspace]\n",
    )?;
    fs::write(format!("{work}/src/main.rs"), "fn main() {}\n").context("can't write main.rs")
}

fn policy(scope: &str) -> String {
    let [web, git, pypi, crates] = ALLOWED;
    let allow = list(
        "allow",
        &[
            &format!("{web}:80/tcp"),
            &format!("{web}:443"),
            &format!("{git}:443"),
            &format!("{git}:22"),
            &format!("{pypi}:443/tcp"),
            &format!("{crates}:443/tcp"),
        ],
    );
    policy_of(scope, &(rule(PROD, CHANGES, "deny") + &section(PROFILE, &allow)))
}

/// Where all those names lead, and what is there.
struct Place {
    web: Web,
    _names: Names,
    _lan: Lan,
    _world: World,
}

impl Place {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let lan = Lan::new()?;
        let mut zone = Zone::usual();
        let all: Vec<&str> = ALLOWED.into_iter().chain([SHUT]).collect();
        for name in &all {
            zone = zone.address(name, &[&ONE.v4(1).to_string(), &ONE.v6(1).to_string()]);
        }
        let names = Names::new(&lan, &zone)?;
        Ok(Self { web: Web::on(ONE, &all)?, _names: names, _lan: lan, _world: world })
    }
}

fn clients() -> Result<()> {
    let place = Place::new()?;
    Ssh::keys()?;
    let _there = Ssh::at(Some(ONE), &ONE.v4(1).to_string())?;
    let _here = Ssh::at(None, "127.0.0.1")?;
    place.web.put("hello.txt", b"hello\n")?;
    repository(&place.web)?;
    wheel(&place.web)?;
    let guard = Guard::start(&policy(WORK))?;
    curl()?;
    git()?;
    pip()?;
    guard.stop()
}

fn fetches() -> Result<()> {
    let mounts = workloads::mounted()?;
    let place = Place::new()?;
    registry(&place.web)?;
    let guard = Guard::start(&policy(TOOLS))?;
    cargo()?;
    guard.stop()?;
    // Nothing is in use any more.
    drop(mounts);
    Ok(())
}

fn curl() -> Result<()> {
    let curl = |rest: &str| line(&format!("curl --silent --show-error --fail --cacert {AUTHORITY} {rest}"));
    for (version, scheme) in [("-4", "http"), ("-6", "https")] {
        let line = curl(&format!("{version} {scheme}://web.example.test/hello.txt"));
        line.works("hello")?;
        line.instead("web.example.test", SHUT).fails(&format!("Could not resolve host: {SHUT}"))?;
    }
    // Another port of the same host, by its name and by its address.
    curl("http://git.example.test/hello.txt").fails("connect")?;
    curl(&format!("http://{}/hello.txt", ONE.v4(2))).fails("connect")?;
    // The host that the name stands for is asked for by another name.
    curl(&format!("--resolve web.example.test:443:{} https://web.example.test/hello.txt", ONE.v4(2)))
        .fails("connect")
}

/// A repository that a server of files can serve, and its log.
fn repository(web: &Web) -> Result<()> {
    let git = |words: &str| -> Result<()> {
        let mut command = Command::new("git");
        command.args(words.split(' ')).current_dir(PLACE).env("HOME", PLACE);
        for who in ["AUTHOR", "COMMITTER"] {
            command
                .env(format!("GIT_{who}_NAME"), "Somebody")
                .env(format!("GIT_{who}_EMAIL"), "who@example.test");
        }
        run(&mut command)?.good().map(|_done| ())
    };
    git("init -q -b main work")?;
    fs::write(format!("{PLACE}/work/README"), "something\n").context("can't write a file")?;
    git("-C work add README")?;
    git("-C work commit -q -m something")?;
    let bare = web.files.join("repository.git").display().to_string();
    git(&format!("clone -q --bare work {bare}"))?;
    // Whoever asks for files must know which there are.
    git(&format!("-C {bare} update-server-info"))
}

fn git() -> Result<()> {
    let https = line("git clone -q https://git.example.test/repository.git /tmp/made/clone")
        .with("GIT_SSL_CAINFO", AUTHORITY)
        .with("GIT_TERMINAL_PROMPT", "0");
    https.works("")?;
    https.instead("git.example.test", SHUT).fails(&format!("Could not resolve host: {SHUT}"))?;
    let ssh = format!(
        "ssh -F none -i {} -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR",
        Ssh::KEY
    );
    let over_ssh =
        line(&format!("git clone -q root@git.example.test:{PLACE}/files/repository.git /tmp/made/clone"))
            .with("GIT_SSH_COMMAND", &ssh);
    over_ssh.works("")?;
    over_ssh.instead("git.example.test", SHUT).fails(&format!("{SHUT}: {UNKNOWN}"))?;
    // An allowed name at a port that isn't; this host.
    over_ssh.instead("git.example.test", "web.example.test").fails("Operation not permitted")?;
    line(&format!("{ssh} root@127.0.0.1 true")).fails("Operation not permitted")
}

/// A package of Python's, which is a zip file, and its page in an index (PEP 427, PEP 503).
fn wheel(web: &Web) -> Result<()> {
    const MAKE: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.writestr("tiny.py", "said = 'tiny'\n")
    about = "tiny-1.0.dist-info/"
    wheel.writestr(about + "METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
    wheel.writestr(about + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    names = ["tiny.py", about + "METADATA", about + "WHEEL", about + "RECORD"]
    wheel.writestr(about + "RECORD", "".join(name + ",,\n" for name in names))
"#;
    const NAME: &str = "tiny-1.0-py3-none-any.whl";
    let page = format!("<!DOCTYPE html>\n<html><body><a href=\"{NAME}\">{NAME}</a></body></html>\n");
    web.put("simple/tiny/index.html", page.as_bytes())?;
    let file = web.files.join("simple/tiny").join(NAME);
    run(Command::new("python3").args(["-c", MAKE]).arg(file))?.good().map(|_done| ())
}

fn pip() -> Result<()> {
    let pip = line(&format!(
        "python3 -m pip install --isolated --no-cache-dir --disable-pip-version-check --no-input --retries 0 --timeout 20 \
         --cert {AUTHORITY} --index-url https://pypi.example.test/simple --target /tmp/made/python tiny",
    ))
    .with("PYTHONPATH", PIP)
    .with("PYTHONDONTWRITEBYTECODE", "1");
    for done in [pip.outside_afresh()?, pip.inside_afresh()?] {
        done.good()?;
    }
    let mut import = line("python3 -c").with("PYTHONPATH", "/tmp/made/python");
    import.words.push("import tiny".to_owned());
    import.inside()?.good()?;
    pip.instead("pypi.example.test", SHUT).fails_inside(UNKNOWN)
}

/// A command in the system on the disk of tools.
fn within(text: &str) -> Line {
    line(&format!("chroot {TOOLS} {text}"))
        .with("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .with("LANG", "C.UTF-8")
        .with("CARGO_HOME", "/work/fetch/home")
        .with("HOME", "/work/fetch")
        .with("CARGO_HTTP_CAINFO", "/work/authority.pem")
        .with("GIT_SSL_CAINFO", "/work/authority.pem")
        .with("CARGO_NET_RETRY", "0")
        // Older ones have the index in a repository, and a library of their own for that, which doesn't take files as they are.
        .with("CARGO_NET_GIT_FETCH_WITH_CLI", "true")
}

/// A crate and an index that has it.
fn registry(web: &Web) -> Result<()> {
    let (tiny, index) = (format!("{TOOLS}/work/tiny"), format!("{PLACE}/index"));
    for dir in [format!("{tiny}/src"), format!("{index}/ti/ny")] {
        fs::create_dir_all(&dir).with_context(|| format!("can't make {dir}"))?;
    }
    let about = "[package]\nname = \"tiny\"\nversion = \"0.1.0\"\nedition = \"2021\"\nlicense = \"MIT\"\ndescription = \"t\"\n\n[workspace]\n";
    fs::write(format!("{tiny}/Cargo.toml"), about).context("can't write Cargo.toml")?;
    fs::write(format!("{tiny}/src/lib.rs"), "").context("can't write lib.rs")?;
    // Names and certificates as the guest has them.
    fs::copy(AUTHORITY, format!("{TOOLS}/work/authority.pem")).context("can't copy the certificate")?;
    fs::copy("/etc/resolv.conf", format!("{TOOLS}/etc/resolv.conf")).context("can't copy resolv.conf")?;
    within("cargo package --quiet --offline --no-verify --allow-dirty --manifest-path /work/tiny/Cargo.toml")
        .outside()?
        .good()?;
    let file = format!("{tiny}/target/package/tiny-0.1.0.crate");
    let bytes = fs::read(&file).with_context(|| format!("can't read {file}"))?;
    web.put("crates/tiny-0.1.0.crate", &bytes)?;
    let sum = run(Command::new("sha256sum").arg(&file))?.good()?.stdout;
    let sum = sum.split(' ').next().unwrap_or_default();
    let entry = format!(
        "{{\"name\":\"tiny\",\"vers\":\"0.1.0\",\"deps\":[],\"cksum\":\"{sum}\",\"features\":{{}},\"yanked\":false}}\n"
    );
    let config = "{\"dl\":\"https://crates.example.test/crates/{crate}-{version}.crate\"}\n";
    fs::write(format!("{index}/ti/ny/tiny"), entry).context("can't write the index")?;
    fs::write(format!("{index}/config.json"), config).context("can't write the index")?;
    let script = format!(
        "git init -q -b main . && git add . && git -c user.name=a -c user.email=a@example.test commit -q -m index && \
         git clone -q --bare . {files}/index && git -C {files}/index update-server-info",
        files = web.files.display()
    );
    run(Command::new("sh").args(["-c", &script]).current_dir(&index).env("HOME", PLACE))?
        .good()
        .map(|_done| ())
}

fn cargo() -> Result<()> {
    let fetch = within(
        "cargo --config source.crates-io.replace-with=\"local\" \
         --config source.local.registry=\"https://crates.example.test/index\" fetch --manifest-path /work/fetch/Cargo.toml",
    );
    fetch.works("")?;
    ensure!(
        fs::exists(format!("{TOOLS}/work/fetch/Cargo.lock"))?,
        "cargo has found nothing, and said nothing of it"
    );
    fetch.instead("crates.example.test", SHUT).fails_inside(&format!("Could not resolve host: {SHUT}"))
}
