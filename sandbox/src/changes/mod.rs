//! What a guest changed in its workspaces. In an overlay ([`ShareMode::Overlay`](crate::ShareMode::Overlay)) it is told, shown, applied or thrown away;
//! otherwise it is told.
//!
//! The guest chose the names and what is in the files. Nothing here follows a link or leaves the workspace, whatever they are; make names
//! safe before you print them ([`quoted`]), and look at what is marked with a [`Caution`] before you apply it.

mod changed;
mod diff;
pub(crate) mod overlay;

pub use fsshare::{
    ApplyError, Caution, Change, Changes, ChangesError, ChangesInPlace, Content, FileKind,
    FileState, OnConflict, What,
};

pub(crate) use changed::Changed;
pub use changed::WorkspaceChanges;
pub use diff::{quoted, unified_diff, visible};
pub use overlay::Overlay;
