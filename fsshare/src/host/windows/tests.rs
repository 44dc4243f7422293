//! The layer on a real directory.
