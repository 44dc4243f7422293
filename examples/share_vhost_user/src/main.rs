//! Serves a directory to another virtual machine monitor, QEMU say, as its virtio-fs device: the server that sandboxes use for their workspaces,
//! behind the vhost-user protocol.
//!
//! ```text
//! share_vhost_user [--read-only] [--no-usual-rules] DIRECTORY SOCKET
//! qemu-system-x86_64 … -object memory-backend-memfd,id=ram,size=1G,share=on -numa node,memdev=ram \
//!     -chardev socket,id=share,path=SOCKET -device vhost-user-fs-pci,chardev=share,tag=workspace
//! ```
//!
//! It serves one machine and ends with it. Nothing confines this process but the server itself; a sandbox's worker has more walls around it.

#[cfg(target_os = "linux")]
mod backend;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Serves DIRECTORY to a virtual machine monitor that connects to SOCKET.
#[derive(Debug, Parser)]
struct Arguments {
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// Hide and protect no names
    #[arg(long)]
    no_usual_rules: bool,
    /// Request queues, each with a thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    queues: u8,
    /// What is shared
    directory: PathBuf,
    /// Where the monitor connects; what is there is replaced
    socket: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("share_vhost_user: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(arguments: &Arguments) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use fsshare::{Config, Rules, Server};

    let directory = &arguments.directory;
    let root = std::fs::File::open(directory)
        .with_context(|| format!("cannot open {}", directory.display()))?;
    let rules = if arguments.no_usual_rules {
        Rules::none()
    } else {
        Rules::usual()
    };
    let server = Server::new(Config {
        read_only: arguments.read_only,
        rules,
        ..Config::new(root.into())
    })?;
    backend::serve(server, usize::from(arguments.queues), &arguments.socket)
}

#[cfg(not(target_os = "linux"))]
fn run(_: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("vhost-user is for Linux")
}
