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
        Op::BPF => command(judged.detail),
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

/// A command of `bpf(2)`.
fn command(number: u32) -> String {
    // `enum bpf_cmd`, `include/uapi/linux/bpf.h`.
    const NAMES: [&str; 37] = [
        "MAP_CREATE",
        "MAP_LOOKUP_ELEM",
        "MAP_UPDATE_ELEM",
        "MAP_DELETE_ELEM",
        "MAP_GET_NEXT_KEY",
        "PROG_LOAD",
        "OBJ_PIN",
        "OBJ_GET",
        "PROG_ATTACH",
        "PROG_DETACH",
        "PROG_TEST_RUN",
        "PROG_GET_NEXT_ID",
        "MAP_GET_NEXT_ID",
        "PROG_GET_FD_BY_ID",
        "MAP_GET_FD_BY_ID",
        "OBJ_GET_INFO_BY_FD",
        "PROG_QUERY",
        "RAW_TRACEPOINT_OPEN",
        "BTF_LOAD",
        "BTF_GET_FD_BY_ID",
        "TASK_FD_QUERY",
        "MAP_LOOKUP_AND_DELETE_ELEM",
        "MAP_FREEZE",
        "BTF_GET_NEXT_ID",
        "MAP_LOOKUP_BATCH",
        "MAP_LOOKUP_AND_DELETE_BATCH",
        "MAP_UPDATE_BATCH",
        "MAP_DELETE_BATCH",
        "LINK_CREATE",
        "LINK_UPDATE",
        "LINK_GET_FD_BY_ID",
        "LINK_GET_NEXT_ID",
        "ENABLE_STATS",
        "ITER_CREATE",
        "LINK_DETACH",
        "PROG_BIND_MAP",
        "TOKEN_CREATE",
    ];
    let known = usize::try_from(number).ok().and_then(|number| NAMES.get(number));
    known.map_or_else(|| format!("command {number}"), |name| format!("BPF_{name}"))
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
        let commands = [0, 2, 22, 26, 34, 36, 37].map(command);
        assert_eq!(commands.join(" "), {
            "BPF_MAP_CREATE BPF_MAP_UPDATE_ELEM BPF_MAP_FREEZE BPF_MAP_UPDATE_BATCH BPF_LINK_DETACH BPF_TOKEN_CREATE command 37"
        });
    }
}
