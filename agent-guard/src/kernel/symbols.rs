//! Where the kernel keeps what it has no type for.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

/// The kernel's symbols. Addresses are shown to root, unless `kernel.kptr_restrict` is 2.
const SYMBOLS: &str = "/proc/kallsyms";

/// The addresses of variables of the kernel's own, in their order; none for one that isn't shown, or of which there are several.
#[must_use]
pub(super) fn addresses<const N: usize>(names: [&str; N]) -> [Option<u64>; N] {
    find(Path::new(SYMBOLS), names).unwrap_or_else(|error| {
        tracing::warn!(%error, "the kernel's symbols can't be read");
        [None; N]
    })
}

fn find<const N: usize>(file: &Path, names: [&str; N]) -> std::io::Result<[Option<u64>; N]> {
    let mut found = names.map(|_name| Found::Nothing);
    for line in BufReader::new(File::open(file)?).lines() {
        let line = line?;
        // Symbols of modules have a fourth word.
        let mut words = line.split_ascii_whitespace();
        let (address, _, symbol, module) = (words.next(), words.next(), words.next(), words.next());
        if module.is_some() {
            continue;
        }
        let Some(found) = names.iter().zip(&mut found).find(|(name, _)| symbol == Some(**name)) else {
            continue;
        };
        let address = address.and_then(|address| u64::from_str_radix(address, 16).ok()).filter(|at| *at != 0);
        *found.1 = match (&found.1, address) {
            (Found::Nothing, Some(address)) => Found::One(address),
            _ => Found::Unclear,
        };
    }
    Ok(found.map(|found| if let Found::One(address) = found { Some(address) } else { None }))
}

/// What was found of a symbol so far.
enum Found {
    Nothing,
    One(u64),
    /// Several, or one whose address isn't shown.
    Unclear,
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
        let found = find(&path, ["hidden", "lock", "twice", "none", "start"]).unwrap();
        assert_eq!(found, [None, Some(0xffff_ffff_8200_0040), None, None, Some(0xffff_ffff_8100_0000)]);
        std::fs::remove_file(&path).unwrap();
    }
}
