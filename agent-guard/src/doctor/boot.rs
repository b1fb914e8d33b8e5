//! How a boot parameter is set for good.

use crate::kernel::host::Host;

/// GRUB's own settings.
const GRUB: &str = "/etc/default/grub";
/// Files that come after them.
const GRUB_MORE: &str = "/etc/default/grub.d";
/// The command line that `kernel-install` writes into entries.
const KERNEL_CMDLINE: &str = "/etc/kernel/cmdline";
/// Where entries of systemd-boot are.
const ENTRIES: [&str; 3] = ["/boot/loader/entries", "/efi/loader/entries", "/boot/efi/loader/entries"];
/// Variables of [`GRUB`], the one that comes last on the command line first.
const VARIABLES: [&str; 2] = ["GRUB_CMDLINE_LINUX_DEFAULT", "GRUB_CMDLINE_LINUX"];

/// What to do to boot with a parameter, such as `lsm=yama,bpf`: for each boot loader that is there; for all that are
/// known if none is.
pub(super) fn with(host: &Host, parameter: &str) -> Vec<String> {
    let grub = host.has(GRUB);
    let entries = ENTRIES.into_iter().find(|path| host.has(path));
    let systemd_boot = host.has(KERNEL_CMDLINE) || entries.is_some();
    let mut steps = vec![format!("boot with {parameter}")];
    if grub || !systemd_boot {
        steps.push(for_grub(host, parameter));
    }
    if systemd_boot || !grub {
        steps.push(for_systemd_boot(host, parameter, entries));
    }
    steps.push("then reboot, and run agent-guard doctor again".to_owned());
    steps
}

fn for_grub(host: &Host, parameter: &str) -> String {
    let text = host.read(GRUB).unwrap_or_default();
    let said = |name: &str| text.lines().rev().find_map(|line| value(line, name));
    // Of a parameter that comes twice the last counts, so it is changed where it stands already.
    let has =
        |name: &&str| said(name).is_some_and(|value| value.split(' ').any(|word| same(word, parameter)));
    let [_, usual] = VARIABLES;
    let name = VARIABLES.into_iter().find(has).unwrap_or(usual);
    let line = replaced(said(name).unwrap_or_default(), parameter);
    let made = match () {
        () if host.has("/usr/sbin/update-grub") => "update-grub".to_owned(),
        () if host.has("/usr/sbin/grubby") => format!("grubby --update-kernel=ALL --args=\"{parameter}\""),
        () if host.has("/usr/sbin/grub2-mkconfig") => "grub2-mkconfig -o /boot/grub2/grub.cfg".to_owned(),
        () => "update-grub (Debian, Ubuntu) or grub2-mkconfig -o /boot/grub2/grub.cfg (others)".to_owned(),
    };
    let more = if host.has(GRUB_MORE) {
        format!("; look into {GRUB_MORE}, too, which comes later")
    } else {
        String::new()
    };
    format!("GRUB: in {GRUB} write {name}=\"{line}\"{more}; then {made}")
}

fn for_systemd_boot(host: &Host, parameter: &str, entries: Option<&str>) -> String {
    let release = host.release();
    let said = host.read(KERNEL_CMDLINE).ok();
    let line = said.unwrap_or_else(|| {
        let words = host.command_line();
        // Those that the loader adds by itself.
        let own = |word: &&String| !word.starts_with("BOOT_IMAGE=") && !word.starts_with("initrd=");
        words.iter().filter(own).cloned().collect::<Vec<_>>().join(" ")
    });
    let line = replaced(&line, parameter);
    let entries = entries.unwrap_or("/boot/loader/entries");
    format!(
        "systemd-boot: in {KERNEL_CMDLINE} write \"{line}\"; then kernel-install add {release} \
         /lib/modules/{release}/vmlinuz; or add {parameter} to the options line of the entries in {entries}"
    )
}

/// The value of a shell variable, if the line sets it.
fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let value = line.trim().strip_prefix(name)?.strip_prefix('=')?.trim();
    Some(value.trim_matches(['"', '\'']))
}

/// Whether two parameters have the same name.
fn same(word: &str, parameter: &str) -> bool {
    let name = |text: &str| text.split_once('=').map(|(name, _)| name.to_owned());
    name(word).is_some() && name(word) == name(parameter)
}

/// A command line with a parameter instead of those of the same name.
fn replaced(line: &str, parameter: &str) -> String {
    let others = line.split_ascii_whitespace().filter(|word| !same(word, parameter));
    others.chain([parameter]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::host::tests::Tree;

    #[test]
    fn grub_on_debian() {
        let tree = Tree::new("grub");
        tree.write(GRUB, "GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n#GRUB_CMDLINE_LINUX=\"x\"\nGRUB_CMDLINE_LINUX='net.ifnames=0'\n");
        tree.write("/usr/sbin/update-grub", "");
        let steps = with(&tree.host(), "lsm=yama,bpf").join("\n");
        assert!(
            steps.contains("GRUB_CMDLINE_LINUX=\"net.ifnames=0 lsm=yama,bpf\"; then update-grub\n"),
            "{steps}"
        );
        assert!(!steps.contains("systemd-boot"), "{steps}");
    }

    #[test]
    fn a_parameter_is_changed_where_it_stands() {
        let tree = Tree::new("grub-default");
        tree.write(GRUB, "GRUB_CMDLINE_LINUX_DEFAULT=\"quiet lsm=yama splash\"\nGRUB_CMDLINE_LINUX=\"\"\n");
        tree.write("/usr/sbin/grub2-mkconfig", "");
        tree.write("/etc/default/grub.d/50-cloud.cfg", "");
        let steps = with(&tree.host(), "lsm=yama,bpf").join("\n");
        assert!(steps.contains("GRUB_CMDLINE_LINUX_DEFAULT=\"quiet splash lsm=yama,bpf\""), "{steps}");
        assert!(steps.contains("grub2-mkconfig -o") && steps.contains("grub.d"), "{steps}");
    }

    #[test]
    fn systemd_boot() {
        let tree = Tree::new("systemd-boot");
        tree.write("/proc/sys/kernel/osrelease", "6.12.1\n");
        tree.write("/efi/loader/entries/a.conf", "");
        tree.write("/proc/cmdline", "initrd=\\a\\initrd root=/dev/vda1 lsm=yama quiet\n");
        let steps = with(&tree.host(), "lsm=yama,bpf").join("\n");
        assert!(steps.contains("write \"root=/dev/vda1 quiet lsm=yama,bpf\""), "{steps}");
        assert!(steps.contains("kernel-install add 6.12.1 /lib/modules/6.12.1/vmlinuz"), "{steps}");
        assert!(steps.contains("/efi/loader/entries") && !steps.contains("GRUB"), "{steps}");
        tree.write(KERNEL_CMDLINE, "root=/dev/vda2\n");
        assert!(with(&tree.host(), "lsm=bpf").join("\n").contains("write \"root=/dev/vda2 lsm=bpf\""));
    }

    #[test]
    fn both_where_neither_is_there() {
        let tree = Tree::new("no-loader");
        let steps = with(&tree.host(), "lsm=bpf").join("\n");
        assert!(steps.contains("GRUB") && steps.contains("systemd-boot"), "{steps}");
    }
}
