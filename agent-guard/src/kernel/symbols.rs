//! Where the kernel keeps what it has no type for.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

/// The kernel's symbols. Addresses are shown to root, unless `kernel.kptr_restrict` is 2.
const SYMBOLS: &str = "/proc/kallsyms";

/// The address of a variable of the kernel's own; none if it isn't shown, or there are several.
#[must_use]
pub(super) fn address(name: &str) -> Option<u64> {
    find(Path::new(SYMBOLS), name)
        .inspect_err(|error| tracing::warn!(%error, "the kernel's symbols can't be read"))
        .ok()?
}

fn find(file: &Path, name: &str) -> std::io::Result<Option<u64>> {
    let mut found = None;
    for line in BufReader::new(File::open(file)?).lines() {
        let line = line?;
        // Symbols of modules have a fourth word.
        let mut words = line.split_ascii_whitespace();
        let (address, _, symbol, module) = (words.next(), words.next(), words.next(), words.next());
        if symbol != Some(name) || module.is_some() {
            continue;
        }
        let address = address.and_then(|address| u64::from_str_radix(address, 16).ok()).filter(|at| *at != 0);
        if found.is_some() || address.is_none() {
            return Ok(None);
        }
        found = address;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_symbol_of_that_name() {
        let path = std::env::temp_dir().join(format!("agent-guard-symbols-{}", std::process::id()));
        let lines = "ffffffff81000000 T start\nffffffff82000040 D lock\nffffffffc0000000 d lock\t[module]\n\
                     0000000000000000 D hidden\nffffffff83000000 d twice\nffffffff83000008 d twice\n";
        std::fs::write(&path, lines).unwrap();
        let found = |name| find(&path, name).unwrap();
        assert_eq!(found("lock"), Some(0xffff_ffff_8200_0040));
        assert_eq!((found("hidden"), found("twice"), found("none")), (None, None, None));
        std::fs::remove_file(&path).unwrap();
    }
}
