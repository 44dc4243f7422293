//! Where a sandbox's changes are learned from.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use fsshare::{Change, Changes, ChangesInPlace, changes_in_place};

use super::overlay::{self, Overlay};
use crate::error::Result;

/// What a guest has changed in one workspace.
#[derive(Debug)]
pub enum WorkspaceChanges {
    /// In its overlay; the host's files are as they were.
    Overlay(Changes),
    /// In the host's files.
    InPlace(ChangesInPlace),
}

impl WorkspaceChanges {
    /// All of them, by path.
    #[must_use]
    pub fn list(&self) -> &[Change] {
        match self {
            Self::Overlay(changes) => changes.list(),
            Self::InPlace(changes) => &changes.list,
        }
    }
}

/// A workspace, and where its changes are.
#[derive(Debug)]
pub(crate) struct Changed {
    workspace: PathBuf,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Overlay(Overlay),
    Journal(OwnedFd),
}

impl Changed {
    pub(crate) fn overlay(workspace: &Path, changes: &Path) -> Self {
        Self {
            workspace: workspace.into(),
            place: Place::Overlay(Overlay {
                workspace: workspace.into(),
                changes: changes.into(),
            }),
        }
    }

    pub(crate) fn in_place(workspace: &Path, journal: OwnedFd) -> Self {
        Self {
            workspace: workspace.into(),
            place: Place::Journal(journal),
        }
    }

    pub(crate) fn read(&self) -> Result<(PathBuf, WorkspaceChanges)> {
        let changes = match &self.place {
            Place::Overlay(overlay) => WorkspaceChanges::Overlay(overlay.read()?),
            Place::Journal(journal) => {
                let root = overlay::open("workspace", &self.workspace)?;
                let changes = changes_in_place(root, journal);
                WorkspaceChanges::InPlace(
                    changes
                        .map_err(|error| overlay::unread("workspace", &self.workspace, &error))?,
                )
            }
        };
        Ok((self.workspace.clone(), changes))
    }
}
