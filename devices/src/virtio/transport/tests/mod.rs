//! The register state machine against a slow reference, and a device's connection to a VM.

mod connect;
mod reference;
