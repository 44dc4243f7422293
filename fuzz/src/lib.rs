//! What the fuzz targets share: reading an input front to back, a guest whose rings are laid out from it, FUSE
//! requests, and a guest's network.
//!
//! An input is no random noise to a target but a short program in it: small numbers name valid things, a rare bit makes a
//! value wild. So the fuzzer reaches the deep states with few bytes and the impossible values as well.

pub mod agent;
pub mod driver;
pub mod fuse;
pub mod input;
pub mod net;
pub mod rings;
pub mod sys;

pub use input::Input;
