//! The guest's root file system: a small Debian of the release this machine runs, so that programs built
//! here run there.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::apt::{Archive, Scope, debian_codename};
use super::kernels::make_ext4;
use crate::project::Project;
use crate::run::{self, Rights, note};

/// Raised whenever the recipe below changes, so that old images aren't taken for new ones.
const RECIPE: u32 = 3;

const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,bash,coreutils,git,curl,python3-minimal,python3,iproute2,procps,\
                        util-linux,sudo,passwd,e2fsprogs,kmod,strace,less,jq,ca-certificates,acl,attr,\
                        xfsprogs,btrfs-progs,psmisc,findutils,tar,netcat-openbsd,openssh-client,stress-ng,\
                        dnsmasq-base,openssl,openssh-server,python3-pip-whl";

/// Units that cost boot time and have no work in a guest that lives for a minute.
const MASKED: [&str; 18] = [
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty@tty1.service",
    "ssh.service",
    "ssh.socket",
    "systemd-firstboot.service",
    "systemd-pcrphase.service",
    "systemd-pcrphase-sysinit.service",
    "systemd-timesyncd.service",
    "systemd-udev-settle.service",
    "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service",
    "sys-kernel-debug.mount",
    "systemd-rfkill.service",
];

/// The release that the image is made of.
fn suite() -> String {
    // On another distribution the newest of the supported releases has the best chance to have a C
    // library as new as the host's.
    debian_codename().unwrap_or_else(|| "trixie".into())
}

/// The image's file.
pub(crate) fn file(project: &Project) -> PathBuf {
    project.cache.join(format!("rootfs-{}-{RECIPE}.ext4", suite()))
}

/// Builds the image unless it is there.
pub(crate) fn ensure(project: &Project, rights: Rights) -> Result<PathBuf> {
    let image = file(project);
    if image.is_file() {
        return Ok(image);
    }
    let suite = suite();
    note("setup", format!("root file system: building Debian {suite} (about a minute)"));
    let archive = Archive::new(&project.cache, Scope::Host)?;
    let work =
        tempfile::tempdir_in(&project.cache).context("can't create a folder for the root file system")?;
    let tree = work.path().join("tree");
    let made = build(&archive, rights, &suite, &tree).and_then(|()| {
        let raw = work.path().join("rootfs.ext4");
        pack(rights, &tree, &raw, "root", 2048)?;
        std::fs::rename(&raw, &image).with_context(|| format!("can't put {} in its place", image.display()))
    });
    // The tree belongs to root: a plain removal would leave it behind.
    run::quiet(run::as_root(rights, "rm")?.arg("-rf").arg("--").arg(&tree))?;
    made?;
    Ok(image)
}

fn build(archive: &Archive, rights: Rights, suite: &str, tree: &Path) -> Result<()> {
    let security = format!("{suite}-security");
    let sources = archive.sources(&[suite.to_owned(), security]);
    let list = tree.with_extension("list");
    std::fs::write(&list, sources).context("can't write the source list")?;
    let mut command = run::as_root(rights, "mmdebstrap")?;
    command.args(["--quiet", "--mode=root", "--variant=minbase"]);
    command.arg(format!("--include={PACKAGES}"));
    for option in
        ["path-exclude=/usr/share/doc/*", "path-exclude=/usr/share/man/*", "path-exclude=/usr/share/locale/*"]
    {
        command.arg(format!("--dpkgopt={option}"));
    }
    command.arg("--aptopt=Acquire::Retries \"3\"");
    let mask = MASKED.join(" ");
    for hook in [
        format!("chroot \"$1\" systemctl mask {mask}"),
        "chroot \"$1\" systemctl set-default multi-user.target".into(),
        "echo guest >\"$1/etc/hostname\"".into(),
        "printf '127.0.0.1 localhost guest\\n::1 localhost\\n' >\"$1/etc/hosts\"".into(),
        "printf '/dev/vda / ext4 defaults 0 0\\n' >\"$1/etc/fstab\"".into(),
        // Python's installer, which would be compiled anew each time that it is run from its archive.
        "chroot \"$1\" sh -c 'python3 -m zipfile -e /usr/share/python-wheels/pip-*.whl /opt/pip && \
         python3 -m compileall -q /opt/pip'"
            .into(),
        // Servers of the tests' own make theirs.
        "rm -f \"$1/etc/resolv.conf\" \"$1\"/etc/ssh/ssh_host_*".into(),
    ] {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.arg(suite).arg(tree).arg(&list);
    run::patiently("setup", "root file system", || run::quiet(&mut command))
}

/// Makes an ext4 image of a tree that belongs to root; `spare` is the free space wanted, in MiB.
pub(super) fn pack(rights: Rights, tree: &Path, image: &Path, label: &str, spare: u64) -> Result<()> {
    if rights == Rights::Root {
        return make_ext4(image, tree, label, spare);
    }
    // Only root may read the whole tree: let it make the image, and take the image over.
    let mke2fs = run::which("mke2fs").context("mke2fs is missing")?;
    let mut command = run::as_root(rights, mke2fs)?;
    command.args(["-q", "-F", "-t", "ext4", "-L", label, "-m", "0", "-d"]);
    run::quiet(command.arg(tree).arg(image).arg("3072M"))?;
    let me = format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    run::quiet(run::as_root(rights, "chown")?.arg(me).arg(image))
}
