//! Memory of a program that is about to be executed: no task has it yet, so it is found through its page tables.

use super::probe_at;

/// Where user space writes what it knows of the kernel's memory. Address of the variable `page_offset_base`, which says where
/// all memory is mapped; 0 if it isn't known: then nothing can be read here. Set like [`super::LAYOUT`].
#[unsafe(no_mangle)]
static PAGE_OFFSET_BASE: u64 = 0;
/// Address of the variable `sme_me_mask`: bits of an entry that say that the page is encrypted. 0 if this kernel has none.
#[unsafe(no_mangle)]
static SME_ME_MASK: u64 = 0;
/// Levels of page tables: 4 or 5; 0 if it isn't known.
#[unsafe(no_mangle)]
static PAGE_LEVELS: u32 = 0;

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// `_PAGE_PRESENT`, `_PAGE_PSE`, `PHYSICAL_PAGE_MASK` (`arch/x86/include/asm/pgtable_types.h`).
const PRESENT: u64 = 1;
const LARGE: u64 = 1 << 7;
const FRAME: u64 = 0x000f_ffff_ffff_f000;
/// Bits of an address that one level takes; those of the last and of the first of four.
const BITS: u32 = 9;
const LAST: u32 = 12;
const FIRST_OF_FOUR: u32 = 39;

/// A number that user space has set.
macro_rules! known {
    ($name:ident) => {
        // SAFETY: a valid, aligned, initialised static.
        unsafe { core::ptr::read_volatile(&raw const $name) }
    };
}

/// Where the kernel itself sees a page: by the first of its page tables and an address in it. 0 if it isn't in memory.
///
/// VERIFIER: see [`crate::walk::walk_end`]; numbers, see [`crate::known::known_beyond`].
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn memory_page(tables: u64, address: u64) -> u64 {
    let (base, mask, levels) = (known!(PAGE_OFFSET_BASE), known!(SME_ME_MASK), known!(PAGE_LEVELS));
    if base == 0 || (levels != 4 && levels != 5) {
        return 0;
    }
    let Some(base) = probe_at::<u64>(base) else { return 0 };
    let encrypted = if mask == 0 { 0 } else { probe_at::<u64>(mask).unwrap_or(FRAME) };
    let mut shift = if levels == 5 { FIRST_OF_FOUR + BITS } else { FIRST_OF_FOUR };
    let mut at = tables;
    for _ in 0..5 {
        let Some(entry) = probe_at::<u64>(at.wrapping_add((address >> shift & 511) * 8)) else { return 0 };
        if entry & PRESENT == 0 || (shift != LAST && entry & LARGE != 0) {
            return 0;
        }
        at = base.wrapping_add(entry & FRAME & !encrypted);
        if shift == LAST {
            return at;
        }
        shift -= BITS;
    }
    0
}
