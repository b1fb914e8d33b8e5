//! The kernels that scenarios run on: Debian's cloud flavour, or any other that is given as a file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::apt::Archive;
use super::image;
use crate::project::Project;
use crate::run::{self, note};

/// The series that every full test run covers.
pub(crate) const SERIES: [&str; 4] = ["6.1", "6.12", "6.18", "7.2"];

const FLAVOUR: &str = "cloud-amd64";

/// A kernel that is ready to boot.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Kernel {
    /// What it is asked for by: the series, or the file's name.
    pub(crate) name: String,
    /// What `uname -r` says.
    pub(crate) release: String,
    /// The package version it came with.
    pub(crate) version: String,
    /// An uncompressed vmlinux where it can be booted directly, else the bzImage.
    pub(crate) image: PathBuf,
    /// The folder `<release>` with its modules, uncompressed, with `modules.dep`.
    pub(crate) modules: PathBuf,
    /// The same folder as an ext4 image.
    pub(crate) modules_image: PathBuf,
}

/// The newest cached kernel of a series.
pub(crate) fn cached(project: &Project, series: &str) -> Option<Kernel> {
    let dir = project.cache.join("kernels").join(series);
    let mut found: Vec<Kernel> = std::fs::read_dir(dir)
        .ok()?
        .filter_map(|entry| read_description(&entry.ok()?.path()))
        .filter(|kernel| kernel.image.is_file() && kernel.modules_image.is_file())
        .collect();
    found.sort_by_key(|kernel| version_key(&kernel.release));
    found.pop()
}

fn read_description(dir: &Path) -> Option<Kernel> {
    let text = std::fs::read_to_string(dir.join("kernel.json")).ok()?;
    let mut kernel: Kernel = serde_json::from_str(&text).ok()?;
    // Stored relative, so that the cache can be moved.
    kernel.image = dir.join(&kernel.image);
    kernel.modules = dir.join(&kernel.modules);
    kernel.modules_image = dir.join(&kernel.modules_image);
    Some(kernel)
}

/// Downloads the newest kernel of a series and makes it ready to boot.
pub(crate) fn fetch(project: &Project, archive: &mut Archive, series: &str) -> Result<Kernel> {
    archive.update()?;
    let names = archive.names("linux-")?;
    let release = newest(&names, series).with_context(|| {
        format!(
            "the mirror has no {FLAVOUR} kernel of the series {series} in bookworm, trixie, their security \
             or backports suites: give another with --kernel PATH"
        )
    })?;
    let parent = project.cache.join("kernels").join(series);
    let dir = parent.join(&release);
    if let Some(kernel) = read_description(&dir) {
        return Ok(kernel);
    }
    note("setup", format!("kernel {series}: downloading {release}"));
    std::fs::create_dir_all(&parent).with_context(|| format!("can't create {}", parent.display()))?;
    let work = tempfile::tempdir_in(&parent).context("can't create a folder for the kernel")?;
    let unpacked = work.path().join("unpacked");
    archive.unpack(&packages(&names, &release), &unpacked)?;
    let image = first_existing(&[
        unpacked.join(format!("boot/vmlinuz-{release}")),
        unpacked.join(format!("usr/lib/modules/{release}/vmlinuz")),
        unpacked.join(format!("lib/modules/{release}/vmlinuz")),
    ])?;
    let modules = first_existing(&[
        unpacked.join(format!("usr/lib/modules/{release}")),
        unpacked.join(format!("lib/modules/{release}")),
    ])?;
    note("setup", format!("kernel {series}: preparing {release}"));
    prepare(&Source { name: series, release: &release, image: &image, modules: &modules }, work.path())?;
    std::fs::remove_dir_all(&unpacked).context("can't remove the unpacked packages")?;
    publish(work, &dir)?;
    read_description(&dir).context("the kernel that was just prepared can't be read back")
}

/// A kernel given as a file: prepared like the others, kept by what it is made of.
pub(crate) fn from_file(project: &Project, file: &Path, modules: Option<&Path>) -> Result<Kernel> {
    let file = std::path::absolute(file)?;
    let (release, modules) = find_modules(&file, modules)?;
    let stamp = std::fs::metadata(&file)
        .with_context(|| format!("can't read the kernel {}", file.display()))?
        .modified()?
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_nanos());
    let parent = project.cache.join("kernels/files");
    let key = format!("{}-{stamp}", file.display()).replace(['/', ' '], "_");
    let dir = parent.join(key.trim_start_matches('_'));
    if let Some(kernel) = read_description(&dir) {
        return Ok(kernel);
    }
    note("setup", format!("kernel {}: preparing {release}", file.display()));
    std::fs::create_dir_all(&parent).with_context(|| format!("can't create {}", parent.display()))?;
    let work = tempfile::tempdir_in(&parent).context("can't create a folder for the kernel")?;
    let name = file.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    prepare(&Source { name: &name, release: &release, image: &file, modules: &modules }, work.path())?;
    publish(work, &dir)?;
    read_description(&dir).context("the kernel that was just prepared can't be read back")
}

/// The modules folder of a kernel given as a file, and the release it is for.
fn find_modules(file: &Path, given: Option<&Path>) -> Result<(String, PathBuf)> {
    let beside = file.parent().unwrap_or(Path::new("/"));
    let candidates = match given {
        Some(dir) => vec![dir.to_path_buf(), dir.join("lib/modules"), dir.join("usr/lib/modules")],
        None => vec![beside.to_path_buf(), beside.join("lib/modules"), beside.join("usr/lib/modules")],
    };
    let is_modules = |dir: &Path| dir.join("modules.builtin").is_file() || dir.join("kernel").is_dir();
    for dir in &candidates {
        if is_modules(dir) {
            let release = dir.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok((release, dir.clone()));
        }
        let inside: Vec<PathBuf> = std::fs::read_dir(dir)
            .map(|entries| entries.flatten().map(|e| e.path()).filter(|p| is_modules(p)).collect())
            .unwrap_or_default();
        if let [one] = inside.as_slice() {
            let release = one.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            return Ok((release, one.clone()));
        }
    }
    bail!(
        "no modules for {} found: put its lib/modules/RELEASE beside it, or name that folder with --modules",
        file.display()
    )
}

struct Source<'a> {
    name: &'a str,
    release: &'a str,
    image: &'a Path,
    modules: &'a Path,
}

/// Makes image, modules and description below `into`.
fn prepare(source: &Source<'_>, into: &Path) -> Result<()> {
    let image = image::extract(source.image, into)?;
    let tree = into.join("modules");
    let modules = tree.join("lib/modules").join(source.release);
    std::fs::create_dir_all(tree.join("lib/modules")).context("can't create the modules folder")?;
    run::quiet(
        Command::new("cp").args(["-rL", "--no-preserve=ownership"]).arg(source.modules).arg(&modules),
    )?;
    for stray in ["vmlinuz", "build", "source"] {
        let path = modules.join(stray);
        drop(std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path)));
    }
    uncompress(&modules)?;
    let depmod = run::which("depmod").context("depmod is missing: run `cargo xtask setup`")?;
    run::quiet(Command::new(depmod).arg("-b").arg(&tree).arg(source.release))?;
    make_ext4(&into.join("modules.img"), &modules, "modules", 0)?;
    let description = Kernel {
        name: source.name.to_owned(),
        release: source.release.to_owned(),
        version: version_of(&into.join(image)).unwrap_or_default(),
        image: image.into(),
        modules: Path::new("modules/lib/modules").join(source.release),
        modules_image: "modules.img".into(),
    };
    std::fs::write(into.join("kernel.json"), serde_json::to_vec_pretty(&description)?)
        .context("can't write the kernel's description")
}

/// The distribution's version of a kernel, which its banner has behind the word "Debian".
fn version_of(image: &Path) -> Option<String> {
    let bytes = std::fs::read(image).ok()?;
    let needle = b" Debian ";
    let mut rest = bytes.as_slice();
    while let Some(at) = rest.windows(needle.len()).position(|w| w == needle) {
        rest = rest.get(at + needle.len()..)?;
        let word: String =
            rest.iter().take(60).take_while(|b| b.is_ascii_graphic()).map(|b| char::from(*b)).collect();
        if word.starts_with(|c: char| c.is_ascii_digit()) {
            return Some(word);
        }
    }
    None
}

/// Unpacks compressed modules, so that the initramfs can load them and nothing is unpacked at run time.
fn uncompress(modules: &Path) -> Result<()> {
    for (suffix, tool) in [("*.ko.xz", "xz"), ("*.ko.zst", "zstd"), ("*.ko.gz", "gzip")] {
        let list = run::capture_bytes(
            Command::new("find").arg(modules).args(["-name", suffix, "-type", "f", "-print0"]),
        )?;
        if list.is_empty() {
            continue;
        }
        let mut xargs = Command::new("xargs");
        xargs.args(["-0", "-n", "100", "-P", "2", tool, "-d", "-q"]);
        if tool == "zstd" {
            xargs.arg("--rm");
        }
        run::filter(&mut xargs, list, false)?;
    }
    Ok(())
}

/// Makes an ext4 image out of a folder; `spare` is the free space wanted, in MiB.
pub(crate) fn make_ext4(file: &Path, folder: &Path, label: &str, spare: u64) -> Result<()> {
    let du = run::capture(Command::new("du").arg("-sm").arg("--apparent-size").arg(folder))?;
    let used: u64 = du.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(256);
    let inodes = run::capture(Command::new("find").arg(folder).args(["-printf", "."]))?.len();
    let size = used.saturating_mul(13) / 10 + spare + 32;
    let mke2fs = run::which("mke2fs").context("mke2fs is missing: run `cargo xtask setup`")?;
    let mut command = Command::new(mke2fs);
    command.args(["-q", "-F", "-t", "ext4", "-L", label, "-m", "0", "-E", "lazy_itable_init=0"]);
    if spare == 0 {
        command.args(["-O", "^has_journal", "-N"]).arg((inodes + 64).to_string());
    }
    run::quiet(command.arg("-d").arg(folder).arg(file).arg(format!("{size}M")))
}

/// Puts a finished folder in its place; whoever came first wins.
fn publish(work: tempfile::TempDir, dir: &Path) -> Result<()> {
    let path = work.keep();
    set_readable(&path)?;
    match std::fs::rename(&path, dir) {
        Ok(()) => Ok(()),
        Err(_) if dir.join("kernel.json").is_file() => {
            std::fs::remove_dir_all(&path).context("can't remove a folder that isn't needed")
        }
        Err(error) => {
            drop(std::fs::remove_dir_all(&path));
            Err(error).with_context(|| format!("can't put {} in its place", dir.display()))
        }
    }
}

fn set_readable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("can't set the mode of {}", path.display()))
}

fn first_existing(candidates: &[PathBuf]) -> Result<PathBuf> {
    candidates
        .iter()
        .find(|path| path.exists())
        .cloned()
        .with_context(|| format!("the kernel package has none of {candidates:?}"))
}

/// The packages that make up a kernel: one up to 6.18, several from 6.19 on.
fn packages(names: &[String], release: &str) -> Vec<String> {
    ["image", "binary", "modules", "base"]
        .into_iter()
        .map(|part| format!("linux-{part}-{release}"))
        .filter(|name| names.contains(name))
        .collect()
}

/// The newest release of a series among package names.
fn newest(names: &[String], series: &str) -> Option<String> {
    let wanted = version_key(series);
    names
        .iter()
        .filter_map(|name| name.strip_prefix("linux-image-").or_else(|| name.strip_prefix("linux-binary-")))
        .filter(|release| release.starts_with(|c: char| c.is_ascii_digit()))
        .filter(|release| release.strip_suffix(FLAVOUR).is_some_and(|v| version_key(v).len() > wanted.len()))
        .filter(|release| version_key(release).starts_with(&wanted))
        .max_by_key(|release| version_key(release))
        .map(str::to_owned)
}

/// A version's numbers, in order: enough to compare releases of one flavour.
fn version_key(version: &str) -> Vec<u64> {
    version
        .trim_end_matches(FLAVOUR)
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|run| run.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_newest_of_a_series_is_chosen_by_number() {
        let names = names(&[
            "linux-image-6.12.90+deb12-cloud-amd64",
            "linux-image-6.12.90+deb12.1-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.118+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.200+deb12-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-cloud-amd64",
        ]);
        assert_eq!(newest(&names, "6.12").as_deref(), Some("6.12.117+deb12-cloud-amd64"));
        assert_eq!(newest(&names, "6.1").as_deref(), Some("6.1.0-56-cloud-amd64"));
        assert_eq!(newest(&names, "6.18"), None);
    }

    #[test]
    fn split_packages_are_all_taken() {
        let names = names(&[
            "linux-image-7.2.12+deb13-cloud-amd64",
            "linux-binary-7.2.12+deb13-cloud-amd64",
            "linux-binary-unsigned-7.2.13+deb13-cloud-amd64",
            "linux-modules-7.2.12+deb13-cloud-amd64",
            "linux-modules-7.2.9+deb13-cloud-amd64",
        ]);
        let release = newest(&names, "7.2").unwrap();
        assert_eq!(release, "7.2.12+deb13-cloud-amd64");
        assert_eq!(packages(&names, &release).len(), 3);
    }
}
