//! Debian packages: installed on this machine, or fetched and unpacked without installing them.
//!
//! The suites that the machine itself doesn't follow are read through a source list and a state folder
//! of our own. The mirrors' addresses come from the machine's apt configuration, the signatures are
//! checked against `debian-archive-keyring`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{self, Rights, note};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A private view of Debian's archive.
#[derive(Debug)]
pub(crate) struct Archive {
    dir: PathBuf,
    mirrors: Mirrors,
    scope: Scope,
    updated: bool,
}

/// Which suites are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// This machine's own release with its backports: what may be installed here.
    Host,
    /// Every release that has kernels for us: to be unpacked, never to be installed.
    Kernels,
}

/// The addresses that this machine gets its packages from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mirrors {
    main: String,
    security: String,
}

impl Archive {
    /// Prepares the private folders below `cache`.
    pub(crate) fn new(cache: &Path, scope: Scope) -> Result<Self> {
        let mirrors = mirrors()?;
        let dir = cache.join(match scope {
            Scope::Host => "apt/host",
            Scope::Kernels => "apt/kernels",
        });
        for sub in ["lists/partial", "cache/archives/partial", "parts"] {
            std::fs::create_dir_all(dir.join(sub))
                .with_context(|| format!("can't create {}", dir.join(sub).display()))?;
        }
        Ok(Self { dir, mirrors, scope, updated: false })
    }

    /// The source lines of a Debian release, for other tools.
    pub(crate) fn sources(&self, suites: &[String]) -> String {
        suites
            .iter()
            .map(|suite| {
                let uri =
                    if suite.ends_with("-security") { &self.mirrors.security } else { &self.mirrors.main };
                format!("deb [signed-by={KEYRING}] {uri} {suite} main\n")
            })
            .collect()
    }

    fn options(&self, command: &mut Command) {
        for (key, path) in [
            ("Dir::Etc::sourcelist", "sources.list"),
            ("Dir::Etc::sourceparts", "parts"),
            ("Dir::State::lists", "lists"),
            ("Dir::Cache", "cache"),
        ] {
            command.arg("-o").arg(format!("{key}={}", self.dir.join(path).display()));
        }
        // The unprivileged download user can't enter a cache below root's home.
        command.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
    }

    /// Fetches the package lists, once.
    pub(crate) fn update(&mut self) -> Result<()> {
        if self.updated {
            return Ok(());
        }
        let releases = match self.scope {
            Scope::Host => vec![debian_codename().context("this machine isn't Debian")?],
            Scope::Kernels => vec!["bookworm".to_owned(), "trixie".to_owned()],
        };
        let suites: Vec<String> = releases
            .iter()
            .flat_map(|r| ["", "-security", "-backports"].map(|suffix| format!("{r}{suffix}")))
            .collect();
        std::fs::write(self.dir.join("sources.list"), self.sources(&suites))
            .context("can't write the private source list")?;
        note("setup", "package lists: fetching (private, this machine's apt is left alone)");
        let mut command = Command::new("apt-get");
        self.options(&mut command);
        command.arg("update");
        run::patiently("setup", "package lists", || run::quiet(&mut command))?;
        self.updated = true;
        Ok(())
    }

    /// All package names that start with `prefix`.
    pub(crate) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let mut command = Command::new("apt-cache");
        self.options(&mut command);
        let text = run::capture(command.args(["pkgnames", prefix]))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Downloads packages and unpacks them into `into`.
    pub(crate) fn unpack(&self, packages: &[String], into: &Path) -> Result<()> {
        let downloads = tempfile::tempdir_in(&self.dir).context("can't create a download folder")?;
        let mut command = Command::new("apt-get");
        self.options(&mut command);
        command.arg("download").args(packages).current_dir(downloads.path());
        run::patiently("setup", "download", || run::quiet(&mut command))?;
        for entry in std::fs::read_dir(downloads.path())? {
            let file = entry?.path();
            if file.extension().is_some_and(|e| e == "deb") {
                run::quiet(Command::new("dpkg").arg("-x").arg(&file).arg(into))?;
            }
        }
        Ok(())
    }

    /// Installs packages from this machine's backports suite.
    fn install_backports(&mut self, rights: Rights, packages: &[&str]) -> Result<()> {
        self.update()?;
        let suite = format!("{}-backports", debian_codename().context("this machine isn't Debian")?);
        let mut command = apt_get(rights)?;
        self.options(&mut command);
        command.args(["install", "-y", "--no-install-recommends", "--no-remove", "-t", &suite]);
        command.args(packages);
        run::patiently("setup", "packages", || run::quiet(&mut command))
    }
}

/// `apt-get` as root, asking no questions.
fn apt_get(rights: Rights) -> Result<Command> {
    let mut command = run::as_root(rights, "env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
    Ok(command)
}

/// Installs packages on this machine, from its own suites or else from backports.
pub(crate) fn install(cache: &Path, rights: Rights, packages: &[&str]) -> Result<()> {
    let list = packages.join(" ");
    if run::which("apt-get").is_none() || rights == Rights::None {
        bail!("these Debian packages are missing and can't be installed from here: {list}");
    }
    note("setup", format!("packages: installing {list}"));
    // A failed update of a third party's list is no reason not to try.
    if let Err(error) = run::quiet(apt_get(rights)?.args(["-o", "Acquire::Retries=3", "update"])) {
        note("setup", format!("packages: apt-get update said {error:#}; going on"));
    }
    let mut plain = apt_get(rights)?;
    // --no-remove: a package of an older release may push out what somebody has installed.
    plain.args(["install", "-y", "--no-install-recommends", "--no-remove"]).args(packages);
    let Err(first) = run::patiently("setup", "packages", || run::quiet(&mut plain)) else { return Ok(()) };
    note("setup", format!("packages: {list} don't fit from the plain suites, trying backports"));
    Archive::new(cache, Scope::Host)?.install_backports(rights, packages).with_context(|| {
        format!("neither the machine's own suites nor backports gave {list}; the first said: {first:#}")
    })
}

/// The release that this machine runs, if it is Debian.
pub(crate) fn debian_codename() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let field = |key: &str| {
        text.lines()
            .find_map(|l| l.strip_prefix(key)?.strip_prefix('='))
            .map(|v| v.trim_matches('"').to_owned())
    };
    if field("ID")? == "debian" { field("VERSION_CODENAME") } else { None }
}

/// Reads the mirrors from the machine's apt configuration.
fn mirrors() -> Result<Mirrors> {
    if let Ok(main) = std::env::var("AGENT_GUARD_DEBIAN_MIRROR") {
        let security =
            std::env::var("AGENT_GUARD_DEBIAN_SECURITY_MIRROR").unwrap_or_else(|_| security_beside(&main));
        return Ok(Mirrors { main, security });
    }
    if run::which("apt-get").is_none() {
        bail!(
            "apt-get isn't there: kernels and the guest's root file system come as Debian packages, \
             so this needs Debian or a derivative (or a cache folder prepared on one: AGENT_GUARD_CACHE)"
        );
    }
    let text = run::capture(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(REPO_URI)|$(LABEL)|$(ORIGIN)",
    ]))?;
    choose_mirrors(&text).context(
        "this machine's apt configuration has no Debian mirror: set AGENT_GUARD_DEBIAN_MIRROR to one \
         (and AGENT_GUARD_DEBIAN_SECURITY_MIRROR), and install debian-archive-keyring; \
         or run `apt-get update` first if it has never run here",
    )
}

fn choose_mirrors(targets: &str) -> Option<Mirrors> {
    let uri = |label: &str| {
        targets.lines().find_map(|line| {
            let mut parts = line.split('|');
            let (uri, found, origin) = (parts.next()?, parts.next()?, parts.next()?);
            (found == label && origin == "Debian").then(|| uri.to_owned())
        })
    };
    let main = uri("Debian")?;
    let security = uri("Debian-Security").unwrap_or_else(|| security_beside(&main));
    Some(Mirrors { main, security })
}

/// Mirrors carry the security archive beside the main one.
fn security_beside(main: &str) -> String {
    format!("{}-security/", main.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_the_machine() {
        let text = "http://m.example/nodesource/|Node|Node\nhttp://m.example/debian/|Debian|Debian\n\
                    http://s.example/debian-security/|Debian-Security|Debian\n";
        let mirrors = choose_mirrors(text).unwrap();
        assert_eq!(mirrors.main, "http://m.example/debian/");
        assert_eq!(mirrors.security, "http://s.example/debian-security/");
    }

    #[test]
    fn the_security_mirror_is_found_beside_the_main_one() {
        let mirrors = choose_mirrors("http://m.example/debian/|Debian|Debian\n").unwrap();
        assert_eq!(mirrors.security, "http://m.example/debian-security/");
        assert_eq!(choose_mirrors("http://m.example/ubuntu/|Ubuntu|Ubuntu\n"), None);
    }
}
