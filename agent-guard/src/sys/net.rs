//! What sockets say of where they are.

use std::{io, os::fd::AsRawFd as _};

use rustix::net::{AddressFamily, SocketType, socket};

/// The number of this process's network name space (`SO_NETNS_COOKIE`, Linux 5.14): as the kernel side sees it.
///
/// # Errors
///
/// If no socket can be made, or the kernel doesn't know the option.
pub fn network_namespace() -> io::Result<u64> {
    let socket = socket(AddressFamily::UNIX, SocketType::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).unwrap_or_default();
    // SAFETY: the value is of the length that is given, and both live as long as the call.
    let code = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if code == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn one_number_for_all_of_a_process() {
        let here = super::network_namespace().unwrap();
        assert_ne!(here, 0);
        assert_eq!(std::thread::spawn(|| super::network_namespace().unwrap()).join().unwrap(), here);
    }
}
