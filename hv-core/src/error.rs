//! What a hypervisor call can fail with, and what a person can do about it.

use std::fmt;

/// Result of a hypervisor call.
pub type Result<T> = std::result::Result<T, HvError>;

/// Whose doing a failure is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The code inside the VM did something that cannot be carried out.
    Guest,
    /// This machine cannot do what was asked: something is missing, off, forbidden or used up.
    Host,
    /// The program that calls this crate broke the contract.
    Caller,
}

/// The native error code that a backend got, kept for the report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OsCode {
    /// The failure was found by our own checks; there is no native code.
    None,
    /// `errno` of Linux or macOS.
    Errno(i32),
    /// `hv_return_t` of Apple's Hypervisor.framework.
    HvReturn(i32),
    /// `HRESULT` of Windows.
    Hresult(i32),
}

impl fmt::Display for OsCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Errno(code) => write!(f, ": {}", std::io::Error::from_raw_os_error(*code)),
            Self::HvReturn(code) => write!(f, ": hv_return_t {code:#010x}"),
            Self::Hresult(code) => write!(f, ": HRESULT {code:#010x}"),
        }
    }
}

/// The kind of a failure; decides [`Fault`] and the remedy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum HvErrorKind {
    /// There is no hypervisor on this host, or it is switched off.
    NotAvailable,
    /// There is one, but this process may not use it.
    NotPermitted,
    /// The hypervisor lacks an ability that is needed here.
    Unsupported,
    /// The host is out of memory, descriptors or VMs.
    Exhausted,
    /// An argument is outside what the contract or [`crate::Limits`] allow.
    InvalidArgument,
    /// The call does not fit the present state (double map, vCPU already bound, …).
    InvalidState,
    /// Anything else that the host answered.
    Other,
}

/// A failed hypervisor call.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{op} failed{code}{}", self.remedy().map(|r| format!(" ({r})")).unwrap_or_default())]
pub struct HvError {
    /// The operation, in the hypervisor's own terms (`KVM_CREATE_VM`, `open /dev/kvm`).
    pub op: &'static str,
    /// What kind of failure it is.
    pub kind: HvErrorKind,
    /// The native code.
    pub code: OsCode,
}

impl HvError {
    /// An error found by our own checks.
    #[must_use]
    pub const fn new(op: &'static str, kind: HvErrorKind) -> Self {
        Self {
            op,
            kind,
            code: OsCode::None,
        }
    }

    /// An argument that the contract does not allow.
    #[must_use]
    pub const fn invalid(op: &'static str) -> Self {
        Self::new(op, HvErrorKind::InvalidArgument)
    }

    /// An error of a system call, classified by its `errno` (Linux numbering).
    #[must_use]
    pub const fn from_errno(op: &'static str, errno: i32) -> Self {
        const EPERM: i32 = 1;
        const ENOENT: i32 = 2;
        const ENOMEM: i32 = 12;
        const EACCES: i32 = 13;
        const EBUSY: i32 = 16;
        const EEXIST: i32 = 17;
        const ENODEV: i32 = 19;
        const EINVAL: i32 = 22;
        const ENFILE: i32 = 23;
        const EMFILE: i32 = 24;
        const ENOTTY: i32 = 25;
        const ENOSPC: i32 = 28;
        const ENOSYS: i32 = 38;
        let kind = match errno {
            ENOENT | ENODEV => HvErrorKind::NotAvailable,
            EPERM | EACCES => HvErrorKind::NotPermitted,
            ENOMEM | ENFILE | EMFILE | ENOSPC => HvErrorKind::Exhausted,
            ENOTTY | ENOSYS => HvErrorKind::Unsupported,
            EINVAL => HvErrorKind::InvalidArgument,
            EEXIST | EBUSY => HvErrorKind::InvalidState,
            _ => HvErrorKind::Other,
        };
        Self {
            op,
            kind,
            code: OsCode::Errno(errno),
        }
    }

    /// Whose doing it is.
    #[must_use]
    pub const fn fault(&self) -> Fault {
        match self.kind {
            HvErrorKind::InvalidArgument | HvErrorKind::InvalidState => Fault::Caller,
            _ => Fault::Host,
        }
    }

    /// What to do about it, where something can be done.
    #[must_use]
    pub const fn remedy(&self) -> Option<&'static str> {
        match self.kind {
            HvErrorKind::NotAvailable => Some(
                "no hypervisor here: enable virtualization in the firmware, or nested \
                 virtualization if this is a VM, and load the kvm_intel or kvm_amd module",
            ),
            HvErrorKind::NotPermitted => {
                Some("this user may not use the hypervisor: join the group that owns /dev/kvm")
            }
            HvErrorKind::Exhausted => Some(
                "the host is out of memory, descriptors or VMs: stop something or raise the limit",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errno_decides_kind_fault_and_remedy() {
        let table = [
            (2, HvErrorKind::NotAvailable, Fault::Host, true),
            (13, HvErrorKind::NotPermitted, Fault::Host, true),
            (24, HvErrorKind::Exhausted, Fault::Host, true),
            (28, HvErrorKind::Exhausted, Fault::Host, true),
            (25, HvErrorKind::Unsupported, Fault::Host, false),
            (22, HvErrorKind::InvalidArgument, Fault::Caller, false),
            (16, HvErrorKind::InvalidState, Fault::Caller, false),
            (17, HvErrorKind::InvalidState, Fault::Caller, false),
            (5, HvErrorKind::Other, Fault::Host, false),
        ];
        for (errno, kind, fault, remedy) in table {
            let error = HvError::from_errno("op", errno);
            assert_eq!(
                (error.kind, error.fault(), error.remedy().is_some()),
                (kind, fault, remedy)
            );
        }
    }

    #[test]
    fn message_names_operation_code_and_remedy() {
        let text = HvError::from_errno("open /dev/kvm", 13).to_string();
        assert!(text.starts_with("open /dev/kvm failed: "), "{text}");
        assert!(text.contains("join the group"), "{text}");
        let own = HvError::invalid("map: address is not page aligned").to_string();
        assert_eq!(own, "map: address is not page aligned failed");
    }
}
