//! Architecture logic without a host: compiled and tested everywhere.

pub mod x86_64;
