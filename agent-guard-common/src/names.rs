//! How rules find objects by name: for what doesn't exist yet, comes again, or may be anywhere.
//!
//! A rule that names a path is bound to the object that is there, and to *chains* of names: `x` in the directory
//! that is there now, and the whole path from the root of the file system. So what is made at that path later has
//! the rule as well.
//!
//! A chain is hashed from the last name upwards, in two steps: each name alone ([`NameHash`]), then the hashes of
//! the names ([`ChainHash`]). All hashes have a secret key, so that nobody can find two names with the same.
//!
//! Walking up from an object, the kernel asks at every name:
//!
//! 1. a filter of bits, whether any rule ends in a name that begins like this one and is as long ([`name_bit`]);
//! 2. if so, the table of shapes, by the hash of the whole name: how long the chains are that end in this name, and
//!    where they have a `*` ([`Shapes`]);
//! 3. for each shape the table of names, by the directory above the chain and the hash of the chain.

use crate::digest::Digest;

/// Bits of the filter; one 64-bit word holds 64.
pub const FILTER_BITS: u32 = 1 << 22;
/// Words of the filter.
pub const FILTER_WORDS: u32 = FILTER_BITS / 64;
/// Names of a chain, at most, and so components of a rule's path.
pub const MAX_CHAIN: u32 = 56;
/// Shapes of the chains that end in one name, at most.
pub const MAX_SHAPES: usize = 31;
/// Stands for a `*` in a chain; no name has this hash.
pub const STAR: u64 = 0;
/// Length of a name from which on its beginning isn't looked at by the filter: the kernel keeps longer names
/// elsewhere (`DNAME_INLINE_LEN`, `include/linux/dcache.h`, 32 and more).
pub const LONG_NAME: u32 = 32;
/// The shortest and the longest text that `**/*TEXT` can end in.
pub const SUFFIX: core::ops::RangeInclusive<u32> = 2..=32;

/// Bit of an object in the filter.
#[inline(always)]
#[must_use]
pub const fn object_bit(dev: u32, ino: u64) -> u32 {
    mix(ino ^ ((dev as u64) << 40), 0x9e37_79b9_7f4a_7c15)
}

/// Bit of a name in the filter: by its length and its first eight bytes in memory order, zeroes behind its end
/// ([`beginning`]).
#[inline(always)]
#[must_use]
pub const fn name_bit(length: u32, beginning: u64) -> u32 {
    mix(beginning ^ ((length as u64) << 56), 0xd6e8_feb8_6659_fd93)
}

/// Bit of a suffix in the filter: by the last two bytes of a name.
#[inline(always)]
#[must_use]
pub const fn suffix_bit(end: u16) -> u32 {
    mix(end as u64 + 1, 0xa076_1d64_78bd_642f)
}

#[inline(always)]
const fn mix(value: u64, by: u64) -> u32 {
    (value.wrapping_mul(by) >> 42) as u32
}

/// What [`name_bit`] looks at: eight bytes as they are in memory, those behind the name cut off. Nothing of a long name.
#[inline(always)]
#[must_use]
pub const fn beginning(length: u32, first: u64) -> u64 {
    if length >= LONG_NAME {
        0
    } else if length >= 8 {
        first
    } else {
        // The first byte is the lowest: both sides are little-endian (see `layout` for what is supported).
        first & ((1 << (length * 8)) - 1)
    }
}

/// The hash of a name on its way.
#[derive(Clone, Copy, Debug)]
pub struct NameHash(Digest);

impl NameHash {
    /// Begins with a secret key.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self(Digest::new(key))
    }

    /// The first word of a name of that many bytes.
    #[inline(always)]
    #[must_use]
    pub const fn whole(length: u32) -> u64 {
        length as u64
    }

    /// The first word of that many bytes at the end of a name.
    #[inline(always)]
    #[must_use]
    pub const fn suffix(length: u32) -> u64 {
        length as u64 | 1 << 32
    }

    /// Takes in the first word, then eight bytes each time, the first as the lowest; zeroes behind the end.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, word: u64) -> Self {
        Self(self.0.word(word))
    }

    /// The hash; never [`STAR`].
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0.finish()
    }

    fn bytes(mut self, first: u64, bytes: &[u8]) -> u64 {
        self = self.word(first);
        for part in bytes.chunks(8) {
            self = self.word(word_of(part));
        }
        self.finish()
    }
}

/// The hash of a chain on its way, from its last name to its first.
#[derive(Clone, Copy, Debug)]
pub struct ChainHash(Digest);

impl ChainHash {
    /// Begins a chain.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self(Digest::new([key[1], key[0]]))
    }

    /// Takes in the hash of the next name, or [`STAR`].
    #[inline(always)]
    #[must_use]
    pub const fn name(self, hash: u64) -> Self {
        Self(self.0.word(hash))
    }

    /// The hash.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u64 {
        self.0.finish()
    }
}

/// Up to eight bytes as the lowest of a word.
#[must_use]
pub fn word_of(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |word, &byte| word << 8 | u64::from(byte))
}

/// The hash of a name.
#[must_use]
pub fn name(key: [u64; 2], name: &[u8]) -> u64 {
    NameHash::new(key).bytes(NameHash::whole(name.len() as u32), name)
}

/// The hash of what names end in, for `**/*TEXT`. What `name` in a [`crate::NameKey`] is, with the anchor
/// [`crate::ObjectKey::ANYWHERE`].
#[must_use]
pub fn suffix(key: [u64; 2], text: &[u8]) -> u64 {
    NameHash::new(key).bytes(NameHash::suffix(text.len() as u32), text)
}

/// The hash of a chain: hashes of its names, from the last to the first, [`STAR`] for a `*`.
#[must_use]
pub fn chain(key: [u64; 2], names: impl IntoIterator<Item = u64>) -> u64 {
    names.into_iter().fold(ChainHash::new(key), ChainHash::name).finish()
}

/// Bit of a whole name in the filter.
#[must_use]
pub fn bit_of(name: &[u8]) -> u32 {
    let length = name.len() as u32;
    name_bit(length, beginning(length, word_of(name)))
}

/// The shape of a chain: how many names, which of them are `*`, and whether it may be anywhere. 0 is none.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Shape(pub u32);

impl Shape {
    /// The last names of a chain that can be a `*`, counted from its end.
    pub const STARS: u32 = 25;
    const LENGTH: u32 = 0x3f;
    const ANYWHERE: u32 = 0x40;

    /// A chain of that many names, its last one included, none of them `*`.
    #[must_use]
    pub const fn new(length: u32) -> Self {
        Self(length & Self::LENGTH)
    }

    /// The same in any directory.
    #[must_use]
    pub const fn anywhere(self) -> Self {
        Self(self.0 | Self::ANYWHERE)
    }

    /// The same with a `*` at a place, counted from the end of the chain, where its last name is 0. False if
    /// that is too far up, or the last name.
    #[must_use]
    pub fn star(&mut self, at: u32) -> bool {
        let possible = (1..Self::STARS).contains(&at) && at < self.length();
        if possible {
            self.0 |= 1 << (7 + at);
        }
        possible
    }

    /// Number of names.
    #[inline(always)]
    #[must_use]
    pub const fn length(self) -> u32 {
        self.0 & Self::LENGTH
    }

    /// Whether the chain may be in any directory.
    #[inline(always)]
    #[must_use]
    pub const fn is_anywhere(self) -> bool {
        self.0 & Self::ANYWHERE != 0
    }

    /// Whether there is a `*` at a place.
    #[inline(always)]
    #[must_use]
    pub const fn has_star(self, at: u32) -> bool {
        at < Self::STARS && self.0 >> (7 + at) & 1 != 0
    }
}

/// The shapes of all chains that end in one name.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shapes {
    /// The longest, in names.
    pub longest: u32,
    /// Zero.
    pub pad: u32,
    /// All; the first that is 0 ends the list, at the latest the last one.
    pub all: [Shape; MAX_SHAPES + 1],
}

impl Default for Shapes {
    fn default() -> Self {
        Self { longest: 0, pad: 0, all: [Shape(0); MAX_SHAPES + 1] }
    }
}

impl Shapes {
    /// Adds one. False if there is no room for it.
    #[must_use]
    pub fn add(&mut self, shape: Shape) -> bool {
        if self.all.contains(&shape) {
            return true;
        }
        let Some(free) = self.all.iter_mut().take(MAX_SHAPES).find(|free| free.0 == 0) else { return false };
        *free = shape;
        self.longest = self.longest.max(shape.length());
        true
    }

    /// Those that there are.
    pub fn iter(&self) -> impl Iterator<Item = Shape> {
        self.all.iter().copied().take_while(|shape| shape.0 != 0)
    }
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain integers, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::Shapes {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u64; 2] = [1, 2];

    #[test]
    fn hashes_differ() {
        let names: [&[u8]; 6] = [b"a", b"a\0", b"ab", b"abcdefgh", b"abcdefgh\0", b""];
        for (at, one) in names.iter().enumerate() {
            assert_ne!(name(KEY, one), STAR);
            assert_ne!(name(KEY, one), name([1, 3], one));
            assert_ne!(name(KEY, one), suffix(KEY, one));
            for other in &names[at + 1..] {
                assert_ne!(name(KEY, one), name(KEY, other), "{one:?} {other:?}");
            }
        }
        let (a, b) = (name(KEY, b"a"), name(KEY, b"b"));
        assert_ne!(chain(KEY, [a, b]), chain(KEY, [b, a]));
        assert_ne!(chain(KEY, [a, b]), chain(KEY, [a]));
        assert_ne!(chain(KEY, [a, STAR]), chain(KEY, [a]));
        assert_ne!(chain(KEY, [a]), a);
    }

    #[test]
    fn words_and_bits() {
        assert_eq!(word_of(b"ab"), 0x6261);
        assert_eq!(word_of(b"abcdefghi"), u64::from_le_bytes(*b"abcdefgh"));
        assert_eq!(beginning(2, u64::MAX), 0xffff);
        assert_eq!(beginning(8, u64::MAX), u64::MAX);
        assert_eq!(beginning(LONG_NAME, 7), 0);
        assert_eq!(bit_of(b".git"), name_bit(4, u64::from(u32::from_le_bytes(*b".git"))));
        for bit in [object_bit(u32::MAX, u64::MAX), name_bit(255, u64::MAX), suffix_bit(u16::MAX)] {
            assert!(bit < FILTER_BITS);
        }
    }

    #[test]
    fn shapes() {
        let mut shape = Shape::new(3).anywhere();
        assert!(shape.star(1) && !shape.star(0) && !shape.star(3));
        assert_eq!((shape.length(), shape.is_anywhere()), (3, true));
        assert!(shape.has_star(1) && !shape.has_star(2) && !shape.has_star(200));
        assert!(!Shape::new(MAX_CHAIN).is_anywhere());
        assert_eq!(Shape::new(MAX_CHAIN).length(), MAX_CHAIN);
        let mut shapes = Shapes::default();
        for length in 1..=MAX_SHAPES as u32 {
            assert!(shapes.add(Shape::new(length)) && shapes.add(Shape::new(length)));
        }
        assert!(!shapes.add(Shape::new(40)));
        assert_eq!((shapes.longest, shapes.iter().count()), (31, MAX_SHAPES));
        assert_eq!(size_of::<Shapes>(), 136);
    }
}
