//! What a guest may try to get past its network's policy, as tables: each technique by its name, the row of the catalogue of attacks that it
//! belongs to, and what has to become of it.
//!
//! A guest without a machine sends what the technique says to the whole of the egress worker's code (`egress::serve` with `Proxy`). What would be
//! reached if one got through counts: a server that the policy does not name, servers that it does, and the resolver. Each family runs in every
//! [`State`](bench::State), and begins and ends with what is allowed, which must work: without that its tables could not fail.
#![cfg(unix)]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking; clippy knows only functions marked as tests"
)]

mod addresses;
mod bench;
mod craft;
mod dns;
mod frames;
mod http;
mod link;
mod live;
mod proxy;
mod server;
mod table;
mod tcp;
mod tls;
mod world;
