//! Measures the guest's network beside others: `cargo xtask bench egress` runs it.
//!
//! ```text
//! unshare --net --mount egress_load measure ours|passt|slirp4netns     all of it: servers, the network, a guest, the load; JSON on standard output
//! ```
//!
//! A guest is a network namespace: its kernel is this host's, its network card a TAP device. `tap` passes frames between that and a socket, as a
//! machine's network device would, for ours and for passt; slirp4netns takes the TAP device itself, a hop less. The servers are on the loopback
//! of a namespace that has no way out. `measure` starts the other commands.

#[cfg(target_os = "linux")]
mod client;
#[cfg(target_os = "linux")]
mod dns;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod servers;
#[cfg(target_os = "linux")]
mod sys;
#[cfg(target_os = "linux")]
mod tap;
#[cfg(target_os = "linux")]
mod worker;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};

/// Measures the guest's network.
#[derive(Debug, Parser)]
enum Command {
    /// In a network and mount namespace of its own: everything
    Measure {
        /// Whose network
        network: Network,
    },
    /// Our egress without its walls, on one machine's link
    Worker {
        /// Where the machine connects
        socket: PathBuf,
        /// Services on loopback that the guest may use: `NAME=PORT`
        services: Vec<String>,
        /// A policy instead, whose names this host's first name server resolves
        #[arg(long, conflicts_with = "services")]
        policy: Option<PathBuf>,
    },
    /// In the guest: its network card
    Tap {
        /// The egress's
        socket: PathBuf,
        /// Whose records are spoken there
        network: Network,
    },
    /// In the guest: the load
    Load {
        /// Where the servers are: sink, source, and one that says a byte and ends
        #[arg(long)]
        servers: Servers,
        /// Who resolves names
        #[arg(long)]
        resolver: Option<SocketAddr>,
        /// Only hold so many connections that say nothing, until standard input ends
        #[arg(long)]
        idle: Option<usize>,
    },
}

/// The network that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Network {
    Ours,
    Passt,
    Slirp4netns,
}

/// Where a guest finds the servers.
#[derive(Clone, Debug)]
enum Servers {
    /// By these names, each on its port.
    Names,
    /// All at this address.
    At(Ipv4Addr),
}

impl std::str::FromStr for Servers {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "names" => Ok(Self::Names),
            address => address.parse().map(Self::At),
        }
    }
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("egress_load: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Measure { network } => measure::run(network),
        Command::Worker {
            socket,
            services,
            policy,
        } => worker::run(&socket, &services, policy.as_deref()),
        Command::Tap { socket, network } => tap::run(&socket, network),
        Command::Load {
            servers,
            resolver,
            idle: Some(count),
        } => client::hold(&servers, resolver, count),
        Command::Load {
            servers, resolver, ..
        } => client::run(&servers, resolver),
    }
}

#[cfg(not(target_os = "linux"))]
fn run(_: Command) -> anyhow::Result<()> {
    anyhow::bail!("network namespaces are Linux's")
}
