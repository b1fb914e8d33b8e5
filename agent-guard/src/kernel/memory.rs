//! How the running kernel maps memory: what the kernel side needs to read the arguments of a program that is about to run.

use std::fs;

use super::symbols;

/// Where that is found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Memory {
    /// Address of the variable that says where all memory is mapped; 0 if it isn't known.
    pub(super) page_offset_base: u64,
    /// Address of the variable with the bits of encrypted pages; 0 if there is none.
    pub(super) encryption_mask: u64,
    /// Levels of page tables; 0 if they aren't known.
    pub(super) levels: u32,
}

/// Why arguments can't be read here.
const NEEDS: &str = "the arguments of programs can't be read on this kernel, so `exec.rule` can't be enforced: it has to be an \
                     x86-64 kernel whose symbols root can see (kernel.kptr_restrict below 2)";

impl Memory {
    /// What is known of the running kernel.
    pub(super) fn known() -> Self {
        if !cfg!(target_arch = "x86_64") {
            return Self::default();
        }
        let [base, mask] =
            symbols::addresses(["page_offset_base", "sme_me_mask"]).map(Option::unwrap_or_default);
        Self {
            page_offset_base: base,
            encryption_mask: mask,
            levels: fs::read_to_string("/proc/cpuinfo").map_or(0, |text| levels(&text)),
        }
    }

    /// Why arguments can't be read, if so.
    pub(super) const fn missing(self) -> Option<&'static str> {
        if self.page_offset_base == 0 || self.levels == 0 { Some(NEEDS) } else { None }
    }
}

/// Whether a policy's rules about commands can't be kept here, and why.
#[must_use]
pub fn missing() -> Option<&'static str> {
    Memory::known().missing()
}

/// The kernel takes `la57` out of the flags where it doesn't use five levels (`arch/x86/kernel/cpu/common.c`).
fn levels(cpuinfo: &str) -> u32 {
    let Some(flags) = cpuinfo.lines().find(|line| line.starts_with("flags")) else { return 0 };
    if flags.split_ascii_whitespace().any(|flag| flag == "la57") { 5 } else { 4 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_page_tables() {
        assert_eq!(levels("processor\t: 0\nflags\t\t: fpu la57 vme\n"), 5);
        assert_eq!(levels("processor\t: 0\nflags\t\t: fpu vme la570\n"), 4);
        assert_eq!(levels("Features\t: fp asimd\n"), 0);
    }

    #[test]
    fn what_is_missing() {
        assert!(Memory::default().missing().is_some());
        assert!(Memory { page_offset_base: 1, encryption_mask: 0, levels: 4 }.missing().is_none());
    }
}
