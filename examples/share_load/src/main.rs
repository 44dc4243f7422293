//! Puts one kind of load on a directory and prints how many seconds it took, so that the same program measures a share, its peer, and
//! the file system below them.
//!
//! ```text
//! share_load write DIRECTORY --mib 512           one file, 1 MiB at a time
//! share_load read DIRECTORY --mib 512            the same file, from its beginning
//! share_load random DIRECTORY --mib 512          the same file, 4 KiB at a time, anywhere
//! share_load fill DIRECTORY --files 10000        makes the files that `stat` looks at
//! share_load stat DIRECTORY --files 10000        64 threads stat, open and close every file
//! share_load create DIRECTORY --files 100000     makes empty files, then removes them
//! share_load flat DIRECTORY --files 1000000      makes empty files in one folder
//! share_load look DIRECTORY --files 1000000      looks at each of them
//! share_load run DIRECTORY -- COMMAND...         a command, in the directory
//! ```

#![expect(
    clippy::print_stdout,
    reason = "the figure is what this program is for"
)]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};

/// Bytes of one sequential transfer.
const CHUNK: usize = 1 << 20;
/// Bytes of one random transfer.
const BLOCK: usize = 4096;
/// Threads that look at files at once.
const THREADS: usize = 64;

/// Puts one kind of load on a directory and prints how many seconds it took.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    load: Load,
}

#[derive(Debug, Subcommand)]
enum Load {
    /// Write one file from beginning to end
    Write(Sized),
    /// Read that file from beginning to end
    Read(Sized),
    /// Read that file, 4 KiB at a time in no order
    Random(Sized),
    /// Look at, open and close files, from 64 threads
    Stat(Counted),
    /// Make the files that `stat` looks at
    Fill(Counted),
    /// Make empty files in one folder
    Flat(Counted),
    /// Look at each of those
    Look(Counted),
    /// Make empty files, then remove them
    Create(Counted),
    /// Run a command
    Run {
        directory: PathBuf,
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Sized {
    directory: PathBuf,
    /// Size of the file, MiB
    #[arg(long, value_name = "N", default_value_t = 512)]
    mib: usize,
}

#[derive(Debug, clap::Args)]
struct Counted {
    directory: PathBuf,
    /// How many files
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    files: usize,
}

fn main() -> Result<()> {
    let took = match Arguments::parse().load {
        Load::Write(what) => timed(|| write(&what)),
        Load::Read(what) => timed(|| read(&what)),
        Load::Random(what) => timed(|| random(&what)),
        Load::Stat(what) => timed(|| stat(&what)),
        Load::Fill(what) => timed(|| fill(&what)),
        Load::Flat(what) => timed(|| flat(&what)),
        Load::Look(what) => timed(|| look(&what)),
        Load::Create(what) => timed(|| create(&what)),
        Load::Run { directory, command } => timed(|| run(&directory, &command)),
    }?;
    println!("{:.6}", took.as_secs_f64());
    Ok(())
}

fn timed(load: impl FnOnce() -> Result<()>) -> Result<Duration> {
    let start = Instant::now();
    load()?;
    Ok(start.elapsed())
}

fn big(what: &Sized) -> PathBuf {
    what.directory.join("big")
}

fn write(what: &Sized) -> Result<()> {
    let path = big(what);
    let mut file = File::create(&path).with_context(|| path.display().to_string())?;
    let chunk = vec![0x5a; CHUNK];
    for _ in 0..what.mib {
        file.write_all(&chunk)?;
    }
    Ok(())
}

fn read(what: &Sized) -> Result<()> {
    let path = big(what);
    let mut file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut chunk = vec![0; CHUNK];
    for _ in 0..what.mib {
        file.read_exact(&mut chunk)?;
    }
    Ok(())
}

/// As many blocks as a sixteenth of the file has, in an order that only looks random and is the same each time.
fn random(what: &Sized) -> Result<()> {
    let path = big(what);
    let mut file = File::open(&path).with_context(|| path.display().to_string())?;
    let blocks = (what.mib * (CHUNK / BLOCK)) as u64;
    let mut block = [0; BLOCK];
    let mut state = 1_u64;
    for _ in 0..blocks / 16 {
        // Knuth's MMIX generator; its high bits are the good ones.
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = (state >> 33) % blocks;
        file.seek(SeekFrom::Start(at * BLOCK as u64))?;
        file.read_exact(&mut block)?;
    }
    Ok(())
}

/// Hundred files a folder, as trees have them.
fn path(directory: &Path, number: usize) -> PathBuf {
    directory.join(format!("d{}/f{number}", number / 100))
}

fn fill(what: &Counted) -> Result<()> {
    for number in 0..what.files {
        let path = path(&what.directory, number);
        if number % 100 == 0 {
            fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        }
        fs::write(&path, format!("file {number}\n"))?;
    }
    Ok(())
}

fn stat(what: &Counted) -> Result<()> {
    from_all_threads(what.files, |number| {
        let path = path(&what.directory, number);
        fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        drop(File::open(&path)?);
        Ok(())
    })
}

fn from_all_threads(files: usize, each: impl Fn(usize) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let some = || -> Result<()> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= files {
                return Ok(());
            }
            each(number)?;
        }
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(some)).collect();
        threads.into_iter().try_for_each(|thread| {
            thread
                .join()
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?
        })
    })
}

fn flat(what: &Counted) -> Result<()> {
    for number in 0..what.files {
        File::create_new(what.directory.join(format!("f{number}")))?;
    }
    Ok(())
}

fn look(what: &Counted) -> Result<()> {
    from_all_threads(what.files, |number| {
        fs::symlink_metadata(what.directory.join(format!("f{number}")))?;
        Ok(())
    })
}

fn create(what: &Counted) -> Result<()> {
    let directory = what.directory.join("made");
    fs::create_dir(&directory)?;
    for number in 0..what.files {
        File::create_new(directory.join(format!("f{number}")))?;
    }
    for number in 0..what.files {
        fs::remove_file(directory.join(format!("f{number}")))?;
    }
    Ok(fs::remove_dir(&directory)?)
}

fn run(directory: &Path, command: &[String]) -> Result<()> {
    let (program, arguments) = command.split_first().context("no command")?;
    let status = Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .stdout(Stdio::null())
        .status()
        .with_context(|| program.clone())?;
    ensure!(status.success(), "{program} ended with {status}");
    Ok(())
}
