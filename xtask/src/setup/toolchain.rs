//! The system that real workloads run in: a small Debian with cargo, gcc and git, and a repository of packages
//! that needs no network. Guests that ask for it get it as a disk of its own.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Archive, Scope, debian_codename};
use super::rootfs;
use crate::project::Project;
use crate::run::{self, Rights, note};

/// Raised whenever the recipe below changes, so that old images aren't taken for new ones.
const RECIPE: u32 = 1;

const PACKAGES: &str = "cargo,gcc,libc6-dev,git,ca-certificates";

/// Where the image's own apt finds packages.
const REPOSITORY: &str = "/srv/repository";

/// Downloads a package and writes the index of the repository, which needs no tool for so little.
const FILL_REPOSITORY: &str = r#"mkdir -p "$1/srv/repository" && cd "$1/srv/repository" &&
APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -q -o APT::Sandbox::User=root download hello &&
for deb in *.deb; do
    dpkg-deb -f "$deb" && printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' \
        "$deb" "$(stat -c %s "$deb")" "$(sha256sum "$deb" | cut -d' ' -f1)" || exit 1
done >Packages"#;

fn suite() -> String {
    debian_codename().unwrap_or_else(|| "trixie".into())
}

/// The image's file.
pub(crate) fn file(project: &Project) -> PathBuf {
    project.cache.join(format!("toolchain-{}-{RECIPE}.ext4", suite()))
}

/// Builds the image unless it is there.
pub(crate) fn ensure(project: &Project, rights: Rights) -> Result<PathBuf> {
    let image = file(project);
    if image.is_file() {
        return Ok(image);
    }
    let suite = suite();
    note("setup", format!("toolchain: building Debian {suite} with cargo and gcc (about two minutes)"));
    let archive = Archive::new(&project.cache, Scope::Host)?;
    let work = tempfile::tempdir_in(&project.cache).context("can't create a folder for the toolchain")?;
    let tree = work.path().join("tree");
    let made = build(&archive, rights, &suite, &tree).and_then(|()| {
        let raw = work.path().join("toolchain.ext4");
        rootfs::pack(rights, &tree, &raw, "toolchain", 512)?;
        std::fs::rename(&raw, &image).with_context(|| format!("can't put {} in its place", image.display()))
    });
    // The tree belongs to root: a plain removal would leave it behind.
    run::quiet(run::as_root(rights, "rm")?.arg("-rf").arg("--").arg(&tree))?;
    made?;
    Ok(image)
}

fn build(archive: &Archive, rights: Rights, suite: &str, tree: &Path) -> Result<()> {
    let list = tree.with_extension("list");
    let sources = archive.sources(&[suite.to_owned(), format!("{suite}-security")]);
    std::fs::write(&list, sources).context("can't write the source list")?;
    let mut command = run::as_root(rights, "mmdebstrap")?;
    command.args(["--quiet", "--mode=root", "--variant=minbase"]);
    command.arg(format!("--include={PACKAGES}"));
    for folder in ["doc", "man", "locale"] {
        command.arg(format!("--dpkgopt=path-exclude=/usr/share/{folder}/*"));
    }
    command.arg("--aptopt=Acquire::Retries \"3\"");
    for hook in [
        FILL_REPOSITORY.to_owned(),
        format!("echo 'deb [trusted=yes] file:{REPOSITORY} ./' >\"$1/etc/apt/sources.list\""),
        "rm -f \"$1/etc/resolv.conf\" \"$1\"/etc/apt/sources.list.d/*".into(),
    ] {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.arg(suite).arg(tree).arg(&list);
    run::patiently("setup", "toolchain", || run::quiet(&mut command))
}
