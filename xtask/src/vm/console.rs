//! What the kernel says on its console when something is broken.

/// Texts after which nothing that a guest reports can be trusted.
const MARKERS: [&str; 14] = [
    "Kernel panic - not syncing",
    "BUG: ",
    "Oops: ",
    "Oops[",
    "kernel BUG at",
    "general protection fault",
    "Unable to handle kernel",
    "detected stalls on CPUs/tasks",
    "self-detected stall on CPU",
    "detected expedited stalls",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "Out of memory and no killable processes",
];

/// The trouble that a console line tells of, without its time stamp.
///
/// Only lines of the kernel's own count: programs may write what they like to the console, and they
/// don't write time stamps.
pub(crate) fn trouble(line: &str) -> Option<&str> {
    let text = message(line)?;
    MARKERS.iter().any(|marker| text.contains(marker)).then_some(text)
}

/// The message of a kernel line: `[   12.345678] message`, or with the task or processor between,
/// `[   12.345678][    T1] message`.
fn message(line: &str) -> Option<&str> {
    let rest = line.trim_start_matches(['\r', '\0']).strip_prefix('[')?;
    let (stamp, mut rest) = rest.split_once(']')?;
    let (seconds, fraction) = stamp.trim().split_once('.')?;
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if !digits(seconds) || !digits(fraction) {
        return None;
    }
    if let Some(caller) = rest.strip_prefix('[') {
        rest = caller.split_once(']')?.1;
    }
    Some(rest.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_own_trouble_is_recognised() {
        assert_eq!(
            trouble("[   12.345678] BUG: kernel NULL pointer dereference, address: 0000000000000010\r"),
            Some("BUG: kernel NULL pointer dereference, address: 0000000000000010")
        );
        assert_eq!(
            trouble("[    3.1][    T1] Kernel panic - not syncing: Attempted to kill init!"),
            Some("Kernel panic - not syncing: Attempted to kill init!")
        );
        assert!(trouble("[  121.000001] INFO: task x:12 blocked for more than 60 seconds.").is_some());
        assert!(trouble("[   30.0] rcu: INFO: rcu_preempt self-detected stall on CPU").is_some());
    }

    #[test]
    fn what_programs_write_is_not() {
        assert_eq!(trouble("BUG: this is my program's own"), None);
        assert_eq!(trouble("[info] BUG: neither is this"), None);
        assert_eq!(trouble("[    0.5] virtio_blk virtio1: 2/0/0 default/read/poll queues"), None);
        assert_eq!(trouble(""), None);
    }
}
