//! Reads BTF, the kernel's description of its own types, as far as offsets need it.
//!
//! Format: `Documentation/bpf/btf.rst`, Linux 6.1. Written here because aya keeps structure members to
//! itself.

use std::collections::HashMap;

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Too short, or an offset points outside.
    #[error("BTF ends where {0} should be")]
    Short(&'static str),
    /// Not BTF, or of another byte order.
    #[error("not BTF of this byte order (magic {0:#06x})")]
    Magic(u16),
    /// A kind of type that this reader doesn't know: what follows can't be found.
    #[error("BTF type {id} is of unknown kind {kind}")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
}

/// A member of a structure.
#[derive(Clone, Copy, Debug)]
struct Member {
    name: u32,
    of: u32,
    offset: u32,
}

/// A type, as far as it matters here.
#[derive(Clone, Debug)]
enum Type {
    /// Size in bytes.
    Int(u32),
    /// What it points to.
    Pointer(u32),
    /// Structure or union; with bitfields if the flag is set.
    Struct { name: u32, members: Vec<Member>, bitfields: bool },
    /// Another name for a type, or a qualifier.
    Alias(u32),
    /// A function and its prototype.
    Function { name: u32, of: u32 },
    /// A prototype: types of the parameters.
    Prototype(Vec<u32>),
    /// An array of that type.
    Array(u32),
    /// Anything else.
    Other { name: u32 },
}

/// What a member was found to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An integer or enumeration of that many bytes.
    Int(u32),
    /// A pointer, and the name of what it points to; empty for what has none.
    Pointer(String),
    /// A structure or union of that name.
    Struct(String),
    /// An array of bytes.
    Bytes,
    /// An array of structures of that name.
    Array(String),
    /// Something else.
    Other,
}

/// A member's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Bytes from the beginning of the outermost structure.
    pub offset: u32,
    /// What is there.
    pub shape: Shape,
}

/// Members that a search looks at, at most; the largest structures have some hundreds.
const MEMBERS: u32 = 100_000;

/// Types of a kernel.
#[derive(Debug)]
pub struct Btf {
    types: Vec<Type>,
    strings: Vec<u8>,
    structs: HashMap<String, u32>,
    functions: HashMap<String, u32>,
}

/// Reads little pieces off a slice.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn u32(&mut self, what: &'static str) -> Result<u32, Error> {
        let (bytes, rest) = self.0.split_first_chunk::<4>().ok_or(Error::Short(what))?;
        self.0 = rest;
        Ok(u32::from_ne_bytes(*bytes))
    }

    fn skip(&mut self, bytes: usize, what: &'static str) -> Result<(), Error> {
        self.0 = self.0.get(bytes..).ok_or(Error::Short(what))?;
        Ok(())
    }
}

impl Btf {
    /// Reads the contents of `/sys/kernel/btf/vmlinux`.
    ///
    /// # Errors
    ///
    /// If they aren't BTF of this machine's byte order, or end too early.
    pub fn parse(data: &[u8]) -> Result<Self, Error> {
        let mut head = Cursor(data);
        let first = head.u32("the header")?;
        let magic = u16::try_from(first & 0xffff).unwrap_or_default();
        if magic != 0xeb9f {
            return Err(Error::Magic(magic));
        }
        let length = head.u32("the header")? as usize;
        let [type_off, type_len, str_off, str_len] = [
            head.u32("the header")? as usize,
            head.u32("the header")? as usize,
            head.u32("the header")? as usize,
            head.u32("the header")? as usize,
        ];
        let part = |offset: usize, size: usize, what| {
            let start = length.checked_add(offset).ok_or(Error::Short(what))?;
            let end = start.checked_add(size).ok_or(Error::Short(what))?;
            data.get(start..end).ok_or(Error::Short(what))
        };
        let types = read_types(part(type_off, type_len, "the types")?)?;
        let strings = part(str_off, str_len, "the strings")?.to_vec();
        let mut btf = Self { types, strings, structs: HashMap::new(), functions: HashMap::new() };
        btf.index();
        Ok(btf)
    }

    fn index(&mut self) {
        let mut structs = HashMap::new();
        let mut functions = HashMap::new();
        for (id, kind) in (0u32..).zip(&self.types) {
            match kind {
                Type::Struct { name, .. } if *name != 0 => structs.entry(self.text(*name)).or_insert(id),
                Type::Function { name, .. } => functions.entry(self.text(*name)).or_insert(id),
                _ => continue,
            };
        }
        self.structs = structs;
        self.functions = functions;
    }

    fn text(&self, offset: u32) -> String {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned()
    }

    /// Whether the kernel has a function that programs can attach to.
    #[must_use]
    pub fn has_function(&self, name: &str) -> bool {
        self.functions.contains_key(name)
    }

    /// What the parameters of a function point to, by name; empty for what isn't a pointer to something with a name.
    #[must_use]
    pub fn parameters(&self, name: &str) -> Option<Vec<String>> {
        let Type::Function { of, .. } = self.types.get(*self.functions.get(name)? as usize)? else {
            return None;
        };
        let Type::Prototype(parameters) = self.types.get(*of as usize)? else { return None };
        let name = |of: &u32| match self.shape(self.resolve(*of)) {
            Shape::Pointer(name) => name,
            _ => String::new(),
        };
        Some(parameters.iter().map(name).collect())
    }

    /// Whether the kernel has a structure or union of that name.
    #[must_use]
    pub fn has_struct(&self, name: &str) -> bool {
        self.structs.contains_key(name)
    }

    /// Finds a bitfield of one bit by its name; its place in bits from the beginning of the structure.
    #[must_use]
    pub fn bit(&self, of: &str, name: &str) -> Option<u32> {
        let id = *self.structs.get(of)?;
        let (offset, _, size) = self.find(id, name, 0, &mut { MEMBERS })?;
        (size == 1).then_some(offset)
    }

    /// Finds a member by its path, dots between the names. Members of structures without a name count as
    /// members of what holds them.
    #[must_use]
    pub fn member(&self, of: &str, path: &str) -> Option<Place> {
        let mut id = *self.structs.get(of)?;
        let mut offset = 0u32;
        for name in path.split('.') {
            let (bits, inner, size) = self.find(id, name, 0, &mut { MEMBERS })?;
            if size != 0 || bits % 8 != 0 {
                return None; // A bitfield has no address.
            }
            offset = offset.checked_add(bits / 8)?;
            id = self.resolve(inner);
        }
        Some(Place { offset, shape: self.shape(id) })
    }

    /// Offset in bits, type, and for a bitfield its size in bits of a direct member, through structures without a name. Looks at no more than `left`
    /// members: in bad data a structure could hold itself many times over.
    fn find(&self, id: u32, name: &str, depth: u32, left: &mut u32) -> Option<(u32, u32, u32)> {
        let Type::Struct { members, bitfields, .. } = self.types.get(id as usize)? else { return None };
        for member in members {
            *left = left.checked_sub(1)?;
            // With bitfields the upper byte of the offset is the field's size in bits, 0 for none.
            let (size, offset) = if *bitfields {
                (member.offset >> 24, member.offset & 0x00ff_ffff)
            } else {
                (0, member.offset)
            };
            if member.name != 0 {
                if self.text(member.name) == name {
                    return Some((offset, member.of, size));
                }
            } else if depth < 8
                && *left > 0
                && let inner = self.resolve(member.of)
                && let Some(Type::Struct { name: 0, .. }) = self.types.get(inner as usize)
                && let Some((inner, of, size)) = self.find(inner, name, depth + 1, left)
            {
                return Some((offset.checked_add(inner)?, of, size));
            }
        }
        None
    }

    /// Follows other names and qualifiers.
    fn resolve(&self, mut id: u32) -> u32 {
        for _ in 0..32 {
            match self.types.get(id as usize) {
                Some(Type::Alias(of)) => id = *of,
                _ => break,
            }
        }
        id
    }

    fn shape(&self, id: u32) -> Shape {
        match self.types.get(id as usize) {
            Some(Type::Int(size)) => Shape::Int(*size),
            Some(Type::Struct { name, .. }) => Shape::Struct(self.text(*name)),
            Some(Type::Pointer(to)) => Shape::Pointer(match self.types.get(self.resolve(*to) as usize) {
                Some(Type::Struct { name, .. } | Type::Other { name }) => self.text(*name),
                _ => String::new(),
            }),
            Some(Type::Array(of)) => match self.types.get(self.resolve(*of) as usize) {
                Some(Type::Int(1)) => Shape::Bytes,
                Some(Type::Struct { name, .. }) => Shape::Array(self.text(*name)),
                _ => Shape::Other,
            },
            _ => Shape::Other,
        }
    }
}

/// Reads all types. Number 0 is `void`.
fn read_types(data: &[u8]) -> Result<Vec<Type>, Error> {
    let mut types = vec![Type::Other { name: 0 }];
    let mut at = Cursor(data);
    while !at.0.is_empty() {
        let name = at.u32("a type")?;
        let info = at.u32("a type")?;
        let size_or_type = at.u32("a type")?;
        let (kind, count, flag) = ((info >> 24) & 0x1f, info & 0xffff, info >> 31 != 0);
        let parsed = match kind {
            1 => {
                at.skip(4, "an integer")?;
                Type::Int(size_or_type)
            }
            2 => Type::Pointer(size_or_type),
            3 => {
                let of = at.u32("an array")?;
                at.skip(8, "an array")?;
                Type::Array(of)
            }
            4 | 5 => {
                let mut members = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    let name = at.u32("a member")?;
                    let of = at.u32("a member")?;
                    members.push(Member { name, of, offset: at.u32("a member")? });
                }
                Type::Struct { name, members, bitfields: flag }
            }
            6 => {
                at.skip(count as usize * 8, "an enumeration")?;
                Type::Int(size_or_type)
            }
            8..=11 | 18 => Type::Alias(size_or_type),
            12 => Type::Function { name, of: size_or_type },
            7 | 16 => Type::Other { name },
            13 => {
                let mut parameters = Vec::with_capacity(count as usize);
                for _ in 0..count {
                    at.skip(4, "a parameter")?;
                    parameters.push(at.u32("a parameter")?);
                }
                Type::Prototype(parameters)
            }
            14 | 17 => {
                at.skip(4, "a variable")?;
                Type::Other { name }
            }
            15 => {
                at.skip(count as usize * 12, "a data section")?;
                Type::Other { name }
            }
            19 => {
                at.skip(count as usize * 12, "an enumeration")?;
                Type::Int(size_or_type)
            }
            kind => return Err(Error::Kind { id: u32::try_from(types.len()).unwrap_or(u32::MAX), kind }),
        };
        types.push(parsed);
    }
    Ok(types)
}

/// BTF without any types.
#[cfg(test)]
pub(super) fn tests_empty() -> Vec<u8> {
    [0x0001_eb9fu32, 24, 0, 0, 0, 1].iter().flat_map(|word| word.to_ne_bytes()).chain([0]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `struct outer { int a; struct { const struct inner *p; }; unsigned flags:3, one:1; struct inner in; }`.
    fn sample() -> Vec<u8> {
        let strings = b"\0int\0outer\0inner\0a\0p\0flags\0one\0in\0bpf_lsm_x\0";
        let at = |text: &str| {
            let text = format!("\0{text}\0");
            (strings.windows(text.len()).position(|w| w == text.as_bytes()).unwrap() + 1) as u32
        };
        let info = |kind: u32, count: u32, flag: u32| kind << 24 | count | flag << 31;
        let mut words: Vec<u32> = Vec::new();
        words.extend([at("int"), info(1, 0, 0), 4, 32]); // 1
        words.extend([at("inner"), info(4, 1, 0), 4, at("a"), 1, 0]); // 2
        words.extend([0, info(10, 0, 0), 2]); // 3: const inner
        words.extend([0, info(2, 0, 0), 3]); // 4: pointer
        words.extend([0, info(4, 1, 0), 8, at("p"), 4, 0]); // 5: no name
        words.extend([at("outer"), info(4, 5, 1), 32]); // 6
        words.extend([at("a"), 1, 0, 0, 5, 64, at("flags"), 1, 3 << 24 | 128]);
        words.extend([at("one"), 1, 1 << 24 | 131, at("in"), 2, 160]);
        words.extend([at("bpf_lsm_x"), info(12, 0, 0), 0]); // 7
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let mut data = Vec::new();
        let header = [0x0001_eb9f, 24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        data.extend(header.iter().flat_map(|word: &u32| word.to_ne_bytes()));
        data.extend(types);
        data.extend(strings);
        data
    }

    #[test]
    fn finds_members() {
        let btf = Btf::parse(&sample()).unwrap();
        let int = |offset| Some(Place { offset, shape: Shape::Int(4) });
        assert_eq!(btf.member("outer", "a"), int(0));
        assert_eq!(btf.member("outer", "in.a"), int(20));
        let pointer = Place { offset: 8, shape: Shape::Pointer("inner".into()) };
        assert_eq!(btf.member("outer", "p"), Some(pointer));
        assert_eq!(
            (btf.member("outer", "flags"), btf.bit("outer", "flags"), btf.bit("outer", "a")),
            (None, None, None)
        );
        assert_eq!((btf.bit("outer", "one"), btf.bit("inner", "one")), (Some(131), None));
        assert_eq!(btf.member("outer", "missing"), None);
        assert_eq!(btf.member("missing", "a"), None);
        assert!(btf.has_function("bpf_lsm_x"));
        assert!(!btf.has_function("bpf_lsm_y"));
    }

    /// A structure without a name that holds itself twelve times: the search has to end.
    #[test]
    fn a_structure_that_holds_itself() {
        let mut words: Vec<u32> = vec![1, 4 << 24 | 1, 8, 0, 2, 0, 0, 4 << 24 | 12, 8];
        words.extend([[0, 2, 0]; 12].concat());
        let types: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        let size = types.len() as u32;
        let mut data: Vec<u8> =
            [0x0001_eb9f, 24, 0, size, size, 3].iter().flat_map(|word: &u32| word.to_ne_bytes()).collect();
        data.extend(types);
        data.extend(b"\0s\0");
        assert_eq!(Btf::parse(&data).unwrap().member("s", "x"), None);
    }

    #[test]
    fn garbage_is_an_error() {
        assert_eq!(Btf::parse(b"").unwrap_err(), Error::Short("the header"));
        assert_eq!(Btf::parse(&[0; 64]).unwrap_err(), Error::Magic(0));
        let good = sample();
        for end in 0..good.len() {
            let _either = Btf::parse(&good[..end]);
        }
        let mut kind = good;
        kind[24 + 7] = 0x1e;
        assert_eq!(Btf::parse(&kind).unwrap_err(), Error::Kind { id: 1, kind: 0x1e });
    }
}
