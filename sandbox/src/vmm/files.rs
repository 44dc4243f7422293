//! The descriptors that came with the plan, each taken once.

use std::os::fd::OwnedFd;

use hv_core::Fault;

use crate::control::StartFailure;
use crate::plan::Role;

/// Descriptors by their role.
#[derive(Debug)]
pub(crate) struct Files(Vec<(Role, OwnedFd)>);

impl Files {
    /// `files` in the order of `roles`.
    pub(crate) fn new(roles: &[Role], files: Vec<OwnedFd>) -> Self {
        Self(roles.iter().copied().zip(files).collect())
    }

    /// The descriptor for `role`, if one came.
    pub(crate) fn take_optional(&mut self, role: Role) -> Option<OwnedFd> {
        let index = self.0.iter().position(|(known, _)| *known == role)?;
        Some(self.0.swap_remove(index).1)
    }

    /// The descriptor for `role`.
    pub(crate) fn take(&mut self, role: Role) -> Result<OwnedFd, StartFailure> {
        let missing = || StartFailure::new(Fault::Caller, format!("the plan lacks {role:?}"));
        self.take_optional(role).ok_or_else(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_taken_once() {
        let file = || OwnedFd::from(tempfile::tempfile().unwrap());
        let mut files = Files::new(&[Role::Kernel, Role::Share(1)], vec![file(), file()]);
        assert!(files.take_optional(Role::Root).is_none());
        assert!(files.take(Role::Share(1)).is_ok());
        let error = files.take(Role::Share(1)).unwrap_err();
        assert_eq!(error.message, "the plan lacks Share(1)");
        assert!(files.take(Role::Kernel).is_ok());
    }
}
