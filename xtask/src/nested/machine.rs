//! Runs QEMU as the emulated host's machine.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{Clock, NestedJob, NestedResult, Output, TIMED_OUT, image::Image, job::JobFolder};

/// Everything here shortens the start.
const KERNEL_COMMAND_LINE: &str = "console=ttyS0 quiet panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on";

/// When fewer than [`STALL_SECONDS`] pass in the emulated host meanwhile, a processor spins there.
///
/// With time by instructions QEMU (7.2 to 10 at least) now and then gives an inner guest an interrupt twice: `helper_vmrun` leaves the
/// vector that it injects in `exception_index`, and when the instructions that it may execute at once end before the guest's
/// next exit, the vector is taken for a new exception, whether interrupts are enabled or not. A kernel that is interrupted so
/// may wait for a lock that it holds. Each turn of such a wait (PAUSE) ends a run of QEMU's, so a second takes 50.
/// At full work it takes 5, on a busy machine up to 30. With this machine's time a second is one, but an emulated host stood still
/// once in eight runs on a machine with twice the work that it has processors for.
const STALL_WINDOW: Duration = Duration::from_secs(180);
const STALL_SECONDS: u64 = 5;

/// How QEMU ended.
#[derive(Debug)]
enum Ended {
    Itself(ExitStatus),
    /// By us, because it took too long.
    TooLate,
    /// By us, because a guest in it got stuck.
    Stalled,
}

/// Boots the machine, passes the command's output on, waits for the end. Nothing, if a guest in it got stuck.
pub(super) fn run(
    job: &NestedJob,
    image: &Image,
    folder: &JobFolder,
) -> Result<Option<NestedResult>> {
    let stdout = Stream::create(&folder.path().join("stdout"))?;
    let stderr = Stream::create(&folder.path().join("stderr"))?;
    let mut qemu = start(job, image, folder)?;
    let stdout = stdout.follow(job.output, io::stdout())?;
    let stderr = stderr.follow(job.output, io::stderr())?;
    let advance = Advance::new(Instant::now());
    let ended = wait(&mut qemu, job.timeout, advance, || folder.seconds())?;
    let (stdout, stderr) = (stdout.finish()?, stderr.finish()?);
    let status = status(job, folder, ended)?;
    Ok(status.map(|status| NestedResult {
        status,
        stdout,
        stderr,
    }))
}

fn start(job: &NestedJob, image: &Image, folder: &JobFolder) -> Result<Child> {
    let log = File::create(folder.path().join("qemu.log"))?;
    Command::new("setpriv")
        // QEMU must not outlive us, however we end.
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(machine_arguments(job))
        .args(device_arguments(job, folder)?)
        .arg("-kernel")
        .arg(&image.kernel)
        .arg("-initrd")
        .arg(&image.initrd)
        .args(["-append", KERNEL_COMMAND_LINE])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("cannot start QEMU")
}

/// The command's exit status, or what the end of QEMU means.
fn status(job: &NestedJob, folder: &JobFolder, ended: Ended) -> Result<Option<u8>> {
    match (folder.status()?, ended) {
        (Some(status), _) => Ok(Some(status)),
        (None, Ended::Stalled) => Ok(None),
        (None, Ended::TooLate) => {
            let limit = job.timeout.as_secs();
            let inside = folder.seconds();
            eprintln!(
                "xtask: the emulated host was stopped after {limit} s, {inside} s of its own"
            );
            Ok(Some(TIMED_OUT))
        }
        (None, Ended::Itself(qemu)) => Err(died(qemu, folder.path())),
    }
}

/// `la57=off`: KVM inside fails with five-level page tables. `xsave=off`: KVM does not see the XSETBV of its guests here
/// (their CPUID leaf 0xD stays as at reset), so it enters them with a stale XCR0, and their XSAVE would lose registers.
/// `avx=off`: without XSAVE there is none, but QEMU still offers it, and `cksum` believes that. `erms=off,fsrm=off`: QEMU
/// takes a byte at a time for one instruction or two, where a processor takes a cache line a cycle; kernels that clear pages
/// so would spend a third of a start on it in time by instructions. Without them they take eight bytes at a time.
const PROCESSOR: &str = "max,la57=off,xsave=off,avx=off,erms=off,fsrm=off";

fn machine_arguments(job: &NestedJob) -> Vec<String> {
    let cpus = if job.clock == Clock::Instructions {
        1
    } else {
        job.cpus
    };
    let threads = if cpus == 1 { "single" } else { "multi" };
    let mut arguments = words("-nodefaults -no-user-config -no-reboot -display none -machine q35");
    arguments.extend(words(&format!(
        "-cpu {PROCESSOR} -accel tcg,thread={threads},tb-size=512 -smp {cpus} -m {}",
        job.memory_mib
    )));
    if job.clock == Clock::Instructions {
        arguments.extend(words("-icount shift=1,sleep=off"));
    }
    arguments
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// The serial console for the kernel, two ports for the command's output, and what the host mounts.
fn device_arguments(job: &NestedJob, folder: &JobFolder) -> Result<Vec<String>> {
    let path = option_path(folder.path())?;
    let mut arguments: Vec<String> = vec!["-serial".into(), format!("file:{path}/console.log")];
    arguments.extend(words("-device virtio-serial-pci"));
    for (number, name) in [(1, "stdout"), (2, "stderr")] {
        arguments.push("-chardev".into());
        arguments.push(format!("file,id={name},path={path}/{name}"));
        arguments.push("-device".into());
        arguments.push(format!("virtserialport,chardev={name},nr={number}"));
    }
    let results = option_path(&folder.results(job))?;
    for (tag, source, options) in [
        // The machine's root spans several file systems: remap keeps their inode numbers apart.
        ("machine", "/", ",readonly=on,multidevs=remap"),
        ("job", path.as_str(), ""),
        ("out", results.as_str(), ""),
    ] {
        arguments.push("-fsdev".into());
        arguments.push(format!(
            "local,id={tag},path={source},security_model=none{options}"
        ));
        arguments.push("-device".into());
        arguments.push(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag}"));
    }
    Ok(arguments)
}

/// A path inside of a QEMU option, where a comma is written twice.
fn option_path(path: &Path) -> Result<String> {
    let path = std::path::absolute(path)?;
    let text = path
        .to_str()
        .ok_or_else(|| anyhow!("{} is not valid UTF-8", path.display()))?;
    Ok(text.replace(',', ",,"))
}

/// Waits for QEMU's end, and brings it about when that takes too long, or when the `seconds` that pass in the emulated host
/// are too few.
fn wait(
    qemu: &mut Child,
    timeout: Duration,
    mut advance: Advance,
    seconds: impl Fn() -> u64,
) -> Result<Ended> {
    let start = Instant::now();
    let ended = loop {
        if let Some(status) = qemu.try_wait()? {
            return Ok(Ended::Itself(status));
        }
        if start.elapsed() >= timeout {
            break Ended::TooLate;
        }
        if advance.is_stalled(seconds(), Instant::now()) {
            break Ended::Stalled;
        }
        thread::sleep(Duration::from_millis(10));
    };
    qemu.kill()?;
    qemu.wait()?;
    Ok(ended)
}

/// How far the emulated host's time has come.
#[derive(Debug)]
struct Advance {
    seconds: u64,
    since: Instant,
}

impl Advance {
    fn new(now: Instant) -> Self {
        Self {
            seconds: 0,
            since: now,
        }
    }

    /// Takes note of the emulated host's time; whether that stands still, or as good as.
    fn is_stalled(&mut self, seconds: u64, now: Instant) -> bool {
        if seconds >= self.seconds.saturating_add(STALL_SECONDS) {
            *self = Self {
                seconds,
                since: now,
            };
        }
        now.duration_since(self.since) >= STALL_WINDOW
    }
}

/// Says what is known about an emulated host that ended before its command.
fn died(status: ExitStatus, folder: &Path) -> anyhow::Error {
    let mut report = format!("the emulated host ended before its command did (QEMU: {status})");
    for name in ["qemu.log", "console.log"] {
        let text = fs::read(folder.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<_> = text.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(15)) {
            report.push_str(&format!("\n{name}: {line}"));
        }
    }
    anyhow!(report)
}

/// A named pipe into which QEMU writes.
#[derive(Debug)]
struct Stream {
    reader: File,
    /// Held so that the reader waits until QEMU has opened the pipe, and sees the end only when we say so.
    writer: File,
}

impl Stream {
    fn create(path: &Path) -> Result<Self> {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .with_context(|| format!("cannot create the pipe {}", path.display()))?;
        // Without a writer an open for reading blocks; opening for both does not.
        let writer = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Self {
            reader: File::open(path)?,
            writer,
        })
    }

    fn follow(self, output: Output, to: impl Write + Send + 'static) -> Result<Following> {
        let Self { mut reader, writer } = self;
        let thread = thread::Builder::new().spawn(move || match output {
            Output::Inherit => copy(&mut reader, to),
            Output::Capture => {
                let mut captured = Vec::new();
                reader.read_to_end(&mut captured).map(|_| captured)
            }
        })?;
        Ok(Following { thread, writer })
    }
}

/// Passes on until the end. When nobody takes it any more the rest is still read: QEMU must not wait on a full pipe.
fn copy(from: &mut File, mut to: impl Write) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; 64 * 1024];
    let mut taken = Ok(());
    loop {
        let length = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..length).filter(|part| !part.is_empty()) else {
            return taken.map(|()| Vec::new());
        };
        if taken.is_ok() {
            taken = to.write_all(part).and_then(|()| to.flush());
        }
    }
}

/// A stream that a thread reads.
#[derive(Debug)]
struct Following {
    thread: JoinHandle<io::Result<Vec<u8>>>,
    writer: File,
}

impl Following {
    /// Reads what is left after QEMU's end.
    fn finish(self) -> Result<Vec<u8>> {
        drop(self.writer);
        match self.thread.join() {
            Ok(result) => Ok(result?),
            Err(_) => bail!("the thread that passes the output on failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instruction_clock_takes_one_processor_and_one_thread() {
        let job = NestedJob::new(["true"]).cpus(4).memory_mib(512);
        let wall = machine_arguments(&job).join(" ");
        assert!(
            wall.contains("-smp 4") && wall.contains("thread=multi") && !wall.contains("icount")
        );
        let counted = machine_arguments(&job.clock(Clock::Instructions)).join(" ");
        for part in [
            "-smp 1",
            "thread=single",
            "-icount shift=1,sleep=off",
            "-m 512",
        ] {
            assert!(counted.contains(part), "{counted}");
        }
    }

    #[test]
    fn commas_in_paths_are_no_separators_of_options() {
        assert_eq!(option_path(Path::new("/a,b/c")).unwrap(), "/a,,b/c");
        assert!(
            option_path(Path::new("relative"))
                .unwrap()
                .ends_with("/relative")
        );
    }

    #[test]
    fn stream_gives_what_was_written_until_the_end() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("stream");
        let following = Stream::create(&path)
            .unwrap()
            .follow(Output::Capture, io::sink())
            .unwrap();
        for part in ["one ", "two"] {
            OpenOptions::new()
                .write(true)
                .open(&path)
                .unwrap()
                .write_all(part.as_bytes())
                .unwrap();
        }
        assert_eq!(following.finish().unwrap(), b"one two");
    }

    #[test]
    fn rest_is_read_when_nobody_takes_it() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("file");
        fs::write(&path, vec![0; 200_000]).unwrap();
        let mut file = File::open(&path).unwrap();
        assert_eq!(
            copy(&mut file, Closed).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        assert_eq!(file.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn machine_that_runs_too_long_or_stalls_is_killed() {
        let spawn = |seconds: &str| Command::new("sleep").arg(seconds).spawn().unwrap();
        let end =
            |seconds, timeout, advance| wait(&mut spawn(seconds), timeout, advance, || 0).unwrap();
        let now = Instant::now();
        assert!(matches!(
            end("1000", Duration::ZERO, Advance::new(now)),
            Ended::TooLate
        ));
        let long = Duration::from_secs(600);
        let stalled = Advance::new(now.checked_sub(STALL_WINDOW).unwrap());
        assert!(matches!(end("1000", long, stalled), Ended::Stalled));
        let ended = end("0", long, Advance::new(now));
        assert!(matches!(ended, Ended::Itself(status) if status.success()));
    }

    #[test]
    fn time_that_hardly_passes_counts_as_a_stall() {
        let start = Instant::now();
        let at = |windows: f64| start + STALL_WINDOW.mul_f64(windows);
        let mut advance = Advance::new(start);
        for (seconds, windows, stalled) in [
            (0, 0.9, false),
            (6, 0.95, false),
            (10, 1.9, false),
            (10, 1.95, true),
            (11, 1.95, false),
        ] {
            assert_eq!(
                advance.is_stalled(seconds, at(windows)),
                stalled,
                "{windows}"
            );
        }
    }

    #[test]
    fn report_of_a_death_has_the_last_lines_of_the_logs() {
        let temp = tempfile::tempdir().unwrap();
        let lines: String = (0..40).map(|number| format!("line {number}.\n")).collect();
        fs::write(temp.path().join("console.log"), lines).unwrap();
        let report = died(ExitStatus::default(), temp.path()).to_string();
        assert!(
            report.contains("console.log: line 39.") && !report.contains("line 24."),
            "{report}"
        );
    }
}
