//! Calls as 32-bit programs make them, which have entries of their own into the kernel: `32bit NAME ARG...`.

use anyhow::{Context, Result, bail};

use crate::Attack;
use crate::sys::{self, args};

pub(crate) const ATTACKS: &[(&str, Attack)] =
    &[("32bit", compat), ("unlink-32bit", |a| args(a).and_then(|[name]| compat(&["unlink", name])))];

/// An argument.
#[derive(Clone, Copy)]
enum Word {
    /// A path or another text that the attack was given, by its place.
    Given(usize),
    Text(&'static str),
    Number(u32),
}
use Word::{Given, Number, Text};

/// `AT_FDCWD`.
const HERE: Word = Number((-100_i32).cast_unsigned());
const WRONLY: u32 = 1;
const CREAT: u32 = 0o100;
const EXCL: u32 = 0o200;
const TRUNC: u32 = 0o1000;

/// Name, number of the call for i386, arguments.
const CALLS: &[(&str, u32, &[Word])] = &[
    ("open-read", 5, &[Given(0), Number(0), Number(0)]),
    ("open-write", 5, &[Given(0), Number(WRONLY), Number(0)]),
    ("open-trunc", 5, &[Given(0), Number(WRONLY | TRUNC), Number(0)]),
    ("create-new", 5, &[Given(0), Number(WRONLY | CREAT | EXCL), Number(0o644)]),
    ("openat-write", 295, &[HERE, Given(0), Number(WRONLY), Number(0)]),
    ("creat", 8, &[Given(0), Number(0o644)]),
    ("link", 9, &[Given(0), Given(1)]),
    ("unlink", 10, &[Given(0)]),
    ("unlinkat", 301, &[HERE, Given(0), Number(0)]),
    ("execve", 11, &[Given(0), Number(0), Number(0)]),
    ("mknod", 14, &[Given(0), Number(0o100_644), Number(0)]),
    ("chmod", 15, &[Given(0), Number(0o600)]),
    ("utime", 30, &[Given(0), Number(0)]),
    ("rename", 38, &[Given(0), Given(1)]),
    ("renameat2-exchange", 353, &[HERE, Given(0), HERE, Given(1), Number(2)]),
    ("mkdir", 39, &[Given(0), Number(0o755)]),
    ("rmdir", 40, &[Given(0)]),
    ("symlink", 83, &[Text("target"), Given(0)]),
    ("truncate", 92, &[Given(0), Number(1)]),
    ("truncate64", 193, &[Given(0), Number(1), Number(0)]),
    ("lchown", 198, &[Given(0), Number(65534), Number(65534)]),
    ("chown", 212, &[Given(0), Number(65534), Number(65534)]),
    ("umount2", 52, &[Given(0), Number(0)]),
    ("swapoff", 115, &[Given(0)]),
    ("setxattr", 226, &[Given(0), Text("user.new"), Text("1"), Number(1), Number(0)]),
];

/// Makes one of the calls, in a child: a kernel without them ends it with a signal.
#[cfg(target_arch = "x86_64")]
fn compat(a: &[&str]) -> Result<i32> {
    let [name, given @ ..] = a else { bail!("usage: 32bit NAME ARG...") };
    let (_, number, words) = CALLS
        .iter()
        .find(|(known, ..)| known == name)
        .with_context(|| format!("there is no 32-bit {name} here"))?;
    let mut page = LowPage::new()?;
    let mut registers = [0_u32; 5];
    for (register, word) in registers.iter_mut().zip(words.iter()) {
        *register = match *word {
            Number(number) => number,
            Text(text) => page.put(text)?,
            Given(at) => page.put(given.get(at).context("an argument is missing")?)?,
        };
    }
    sys::in_fork(|| call(*number, registers))
}

#[cfg(not(target_arch = "x86_64"))]
fn compat(_: &[&str]) -> Result<i32> {
    bail!("64-bit programs have no 32-bit calls on this architecture")
}

/// A page where 32 bits can point to.
#[cfg(target_arch = "x86_64")]
struct LowPage {
    start: *mut libc::c_void,
    used: usize,
}

#[cfg(target_arch = "x86_64")]
impl LowPage {
    const SIZE: usize = 4096;

    fn new() -> Result<Self> {
        let (read_write, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT);
        // SAFETY: a new page somewhere below 4 GiB; the kernel chooses where.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, read_write, flags, -1, 0) };
        anyhow::ensure!(
            start != libc::MAP_FAILED,
            "no page below 4 GiB: {}",
            std::io::Error::last_os_error()
        );
        Ok(Self { start, used: 0 })
    }

    /// Adds a text; answers where it is.
    fn put(&mut self, text: &str) -> Result<u32> {
        let text = sys::path(text)?;
        let bytes = text.as_bytes_with_nul();
        anyhow::ensure!(self.used + bytes.len() <= Self::SIZE, "the texts are longer than a page");
        let at = self.start.wrapping_byte_add(self.used).cast::<u8>();
        // SAFETY: the page has that room, and nobody else has it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        self.used += bytes.len();
        u32::try_from(at.addr()).context("the page isn't below 4 GiB")
    }
}

#[cfg(target_arch = "x86_64")]
impl Drop for LowPage {
    fn drop(&mut self) {
        // SAFETY: mapped by us, and unused from here on.
        unsafe { libc::munmap(self.start, Self::SIZE) };
    }
}

/// The call itself.
#[cfg(target_arch = "x86_64")]
fn call(number: u32, [first, second, third, fourth, fifth]: [u32; 5]) -> i32 {
    let mut returned = number;
    // SAFETY: the calls read texts at addresses that are valid, and clobber what is listed. The register for the
    // first argument is the compiler's own, so it is exchanged for the time of the call.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
            first = inout(reg) u64::from(first) => _,
            inout("eax") returned,
            in("ecx") second, in("edx") third, in("esi") fourth, in("edi") fifth,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    returned.cast_signed().saturating_neg().max(0)
}
