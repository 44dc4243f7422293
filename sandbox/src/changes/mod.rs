//! What a guest changed in an overlay of a workspace ([`ShareMode::Overlay`](crate::ShareMode::Overlay)): told, shown, applied or thrown away.
//!
//! The guest chose the names and what is in the files. Nothing here follows a link or leaves the workspace, whatever they are; make names
//! safe before you print them ([`quoted`]), and look at what is marked with a [`Caution`] before you apply it.

mod diff;
pub(crate) mod overlay;

pub use fsshare::{
    ApplyError, Caution, Change, Changes, ChangesError, Content, FileKind, FileState, OnConflict,
    What,
};

pub use diff::{quoted, unified_diff, visible};
pub use overlay::Overlay;
