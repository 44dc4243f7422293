//! Mounts a directory through the share's server, so that this host's own programs see it as a guest would.
//!
//! ```text
//! share_mount [--read-only | --changes DIR] [--no-usual-rules] [--allow-other] DIRECTORY MOUNTPOINT    until `umount MOUNTPOINT`
//! ```

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Mounts DIRECTORY at MOUNTPOINT through the server that sandboxes use for their workspaces.
#[derive(Debug, Parser)]
struct Arguments {
    /// Refuse every change
    #[arg(long)]
    read_only: bool,
    /// Keep what is changed in this directory, and DIRECTORY as it is
    #[arg(long, value_name = "DIR", conflicts_with = "read_only")]
    changes: Option<PathBuf>,
    /// Hide and protect no names
    #[arg(long)]
    no_usual_rules: bool,
    /// Let other users in too, as far as permissions say
    #[arg(long)]
    allow_other: bool,
    /// Threads that serve
    #[arg(long, value_name = "N", default_value_t = 4)]
    threads: usize,
    /// What this host's kernel remembers: for a moment, for a day, or nothing
    #[arg(long, value_enum, default_value_t = Cache::Auto)]
    cache: Cache,
    /// What is shared
    directory: PathBuf,
    /// Where it appears
    mountpoint: PathBuf,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Cache {
    Auto,
    Always,
    Never,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("share_mount: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(target_os = "linux")]
fn run(arguments: &Arguments) -> anyhow::Result<()> {
    use anyhow::Context as _;
    use fsshare::{
        CachePolicy, Config, Rules, Server,
        mount::{Access, Mount},
    };

    let (directory, mountpoint) = (&arguments.directory, &arguments.mountpoint);
    let open = |path: &PathBuf| {
        let opened = std::fs::File::open(path);
        opened.with_context(|| format!("cannot open {}", path.display()))
    };
    let root = open(directory)?;
    let changes = arguments.changes.as_ref().map(open).transpose()?;
    let rules = if arguments.no_usual_rules {
        Rules::none()
    } else {
        Rules::usual()
    };
    let cache = match arguments.cache {
        Cache::Auto => CachePolicy::auto(),
        Cache::Always => CachePolicy::always(),
        Cache::Never => CachePolicy::never(),
    };
    let server = Server::new(Config {
        read_only: arguments.read_only,
        overlay: changes.map(Into::into),
        rules,
        cache,
        ..Config::new(root.into())
    })?;
    let access = if arguments.allow_other {
        Access::All
    } else {
        Access::Owner
    };
    let mount = Mount::new(server, mountpoint, arguments.threads, access)
        .with_context(|| format!("cannot mount at {}", mountpoint.display()))?;
    mount.wait();
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn run(_: &Arguments) -> anyhow::Result<()> {
    anyhow::bail!("only Linux has a /dev/fuse")
}
