//! The guest's network: Ethernet frames in, connections that a policy permits out.
//!
//! Nothing the guest sends leaves the host as a packet. The guest's frames end here; a permitted connection is opened anew, by name,
//! from this side, and only its content is carried across.

pub mod name;
pub mod policy;

pub use name::{HostName, NameError};
