//! The guest's network: Ethernet frames in, connections that a policy permits out.
//!
//! Nothing the guest sends leaves the host as a packet. The guest's frames end here; a permitted connection is opened anew, by name,
//! from this side, and only its content is carried across.

pub mod address;
pub mod audit;
pub mod dial;
pub mod dns;
mod dns_stream;
pub mod egress;
pub mod first_bytes;
mod frame;
pub mod gateway;
pub mod http;
pub mod intercept;
mod json;
pub mod learn;
pub mod link;
pub mod name;
pub mod names;
pub mod policy;
pub mod proxy;
pub mod publish;
mod quota;
pub mod relay;
mod stack;
mod tcp;
#[cfg(all(unix, any(test, feature = "testkit")))]
pub mod testkit;

pub use address::{AddressRefusal, HostAddresses, Subnet};
pub use frame::DroppedFrame;
pub use name::{HostName, NameError};
pub use names::{HeldName, Names, Pool};
pub use quota::{Limit, Spent};
pub use stack::{GuestStream, MAX_CONNECTIONS, MAX_OPENING};
