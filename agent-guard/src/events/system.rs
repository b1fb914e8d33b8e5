//! Operations on the system in words.

use agent_guard_common::{Op, event::Judged, system::CAPABILITIES};

/// What was tried, beside the operation's name: `SIGKILL`, `CAP_SYS_ADMIN`, `AF_PACKET`. Empty where there is nothing to add.
#[must_use]
pub fn what(judged: &Judged) -> String {
    if let Some(number) = judged.capability.checked_sub(1) {
        let known = usize::try_from(number).ok().and_then(|number| CAPABILITIES.get(number));
        return known.map_or_else(
            || format!("capability {number}"),
            |name| format!("CAP_{}", name.to_ascii_uppercase()),
        );
    }
    match Op(judged.op) {
        Op::SIGNAL => signal(judged.detail),
        Op::BPF => format!("command {}", judged.detail),
        Op::RAW_NETWORK => family(judged.detail),
        _ => String::new(),
    }
}

fn signal(number: u32) -> String {
    // `include/uapi/asm-generic/signal.h`.
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
        "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
        "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
    ];
    let known = usize::try_from(number).ok().and_then(|number| NAMES.get(number.checked_sub(1)?));
    known.map_or_else(|| format!("signal {number}"), |name| format!("SIG{name}"))
}

fn family(number: u32) -> String {
    // `include/linux/socket.h`.
    match number {
        2 => "AF_INET".to_owned(),
        10 => "AF_INET6".to_owned(),
        17 => "AF_PACKET".to_owned(),
        44 => "AF_XDP".to_owned(),
        other => format!("address family {other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words() {
        assert_eq!([signal(1), signal(9), signal(31), signal(34), signal(0)].join(" "), {
            "SIGHUP SIGKILL SIGSYS signal 34 signal 0"
        });
        assert_eq!(family(17), "AF_PACKET");
    }
}
