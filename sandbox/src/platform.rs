//! Facts of this host.

/// Bytes of memory that this host has.
#[must_use]
pub(crate) fn total_memory() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram.saturating_mul(u64::from(info.mem_unit))
}

/// Whether the processor has the extension that lets KVM run an unmodified kernel. Without it,
/// `/dev/kvm` may still exist (a paravirtual KVM) but interprets the kernel far too slowly.
#[must_use]
pub(crate) fn runs_unmodified_kernels() -> bool {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    has_virtualization(&cpuinfo)
}

/// Whether `/proc/cpuinfo` lists AMD's SVM or Intel's VMX.
fn has_virtualization(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().find(|line| line.starts_with("flags"));
    flags.is_some_and(|line| {
        line.split_whitespace()
            .any(|flag| matches!(flag, "svm" | "vmx"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virtualization_is_a_whole_flag() {
        for (text, expected) in [
            ("flags\t\t: fpu svm sse", true),
            ("model: x\nflags : vmx", true),
            ("flags : fpu svm_lock", false),
            ("power : svm", false),
            ("", false),
        ] {
            assert_eq!(has_virtualization(text), expected, "{text}");
        }
    }

    #[test]
    fn this_host_has_memory() {
        assert!(total_memory() > 1 << 26);
    }
}
