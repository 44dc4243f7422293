//! The messages. The order of variants and fields *is* the encoding: the golden test pins it.

use serde::{Deserialize, Serialize};

use super::{Octets, OctetsList};

/// Names one exec or file transfer; chosen by the host, never reused in a connection.
pub type Id = u32;

/// What the host asks of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Opens the conversation. The encoding of this variant never changes.
    Hello {
        /// [`super::VERSION`] of the host.
        version: u32,
    },
    /// Makes the machine what the sandbox needs; once, before the first exec.
    Configure(Configure),
    /// Starts a process.
    Exec(ExecRequest),
    /// Bytes for the standard input of a process, or for a file being written.
    Input {
        /// The exec or write.
        id: Id,
        /// At most [`super::MAX_DATA`] and the credit.
        bytes: Octets,
    },
    /// No more input comes: end of file for the process, the end of the file being written.
    InputEnd {
        /// The exec or write.
        id: Id,
    },
    /// Grants the guest more output.
    OutputCredit {
        /// The exec or read.
        id: Id,
        /// Which stream.
        stream: Stream,
        /// Bytes on top of what is left.
        bytes: u32,
    },
    /// Sets the size of the terminal of a process.
    Resize {
        /// The exec.
        id: Id,
        /// New size.
        size: TerminalSize,
    },
    /// Sends a signal to the process group of an exec; `SIGKILL` reaches every descendant.
    Signal {
        /// The exec.
        id: Id,
        /// Linux signal number.
        signal: i32,
    },
    /// Reads a regular file: `Output` on [`Stream::Stdout`], then `TransferEnd`.
    ReadFile {
        /// The transfer.
        id: Id,
        /// Absolute path in the guest.
        path: Octets,
        /// First byte to read.
        offset: u64,
        /// Most bytes to read.
        limit: u64,
    },
    /// Creates or replaces a regular file from the `Input` that follows.
    WriteFile {
        /// The transfer.
        id: Id,
        /// Absolute path in the guest.
        path: Octets,
        /// Permission bits if it is created.
        mode: u32,
    },
    /// Gives a file transfer up; `TransferEnd` with `ECANCELED` answers unless it was already over.
    Cancel {
        /// The transfer.
        id: Id,
    },
    /// Asks for a `Pong`.
    Ping {
        /// Comes back unchanged.
        token: u64,
    },
    /// Ends everything and powers the machine off.
    Shutdown {
        /// How long processes may take to end after `SIGTERM`, in milliseconds.
        grace_ms: u32,
    },
}

/// What the guest reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// Answers `Hello`. The encoding of this variant never changes.
    Hello {
        /// [`super::VERSION`] of the guest.
        version: u32,
    },
    /// `Configure` was carried out.
    Ready(BootFacts),
    /// `Configure` failed; the machine is of no use.
    ConfigureFailed(ConfigureFailure),
    /// The process runs.
    Started {
        /// The exec.
        id: Id,
        /// Its process id in the guest.
        pid: u32,
    },
    /// No process was started; the id is free of meaning from here on.
    ExecFailed {
        /// The exec.
        id: Id,
        /// Why.
        reason: ExecFailure,
    },
    /// Bytes that a process wrote, or of a file being read.
    Output {
        /// The exec or read.
        id: Id,
        /// Which stream.
        stream: Stream,
        /// At most [`super::MAX_DATA`] and the credit.
        bytes: Octets,
    },
    /// The stream has ended.
    OutputEnd {
        /// The exec.
        id: Id,
        /// Which stream.
        stream: Stream,
    },
    /// Grants the host more input.
    InputCredit {
        /// The exec or write.
        id: Id,
        /// Bytes on top of what is left.
        bytes: u32,
    },
    /// The process closed its standard input: what is still sent is thrown away.
    InputClosed {
        /// The exec.
        id: Id,
    },
    /// The process has ended, and all that it wrote was sent before this.
    Exited {
        /// The exec.
        id: Id,
        /// How it ended.
        status: ExitStatus,
    },
    /// The file transfer is over.
    TransferEnd {
        /// The transfer.
        id: Id,
        /// Bytes moved, or the errno of what failed.
        result: Result<u64, i32>,
    },
    /// Answers `Ping`.
    Pong {
        /// From the `Ping`.
        token: u64,
    },
}

/// The machine's set-up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// Host name; empty leaves the kernel's.
    pub hostname: String,
    /// Shared directories.
    pub mounts: Vec<Mount>,
    /// The network, if there is one.
    pub network: Option<Network>,
    /// `NAME=value` for every exec, below what the exec itself sets.
    pub environment: OctetsList,
}

/// A shared directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Tag of the virtiofs device.
    pub tag: String,
    /// The entry of the device's root that is shared, by its number; without one the device is.
    pub entry: Option<u32>,
    /// Absolute path in the guest; made if it is missing.
    pub path: Octets,
    /// Mounted read-only. The server on the host enforces it too.
    pub read_only: bool,
}

/// The guest's place in its network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The guest's IPv4 address.
    pub address: [u8; 4],
    /// How many of its bits are the network's.
    pub prefix_len: u8,
    /// The address of the gateway, where the resolver is too.
    pub gateway: [u8; 4],
    /// The longest packet, in bytes.
    pub mtu: u16,
}

/// What to start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExecRequest {
    /// The exec.
    pub id: Id,
    /// Program and arguments. A program without a slash is looked for in `PATH`.
    pub argv: OctetsList,
    /// `NAME=value`, on top of the defaults.
    pub environment: OctetsList,
    /// Working directory; `/` if absent.
    pub directory: Option<Octets>,
    /// Who runs it; the guest program's own user (root) if absent.
    pub user: Option<User>,
    /// Gives the process a terminal of this size as all three standard streams.
    pub terminal: Option<TerminalSize>,
    /// Whether `Input` will come; else standard input is empty.
    pub stdin: bool,
}

/// A user of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// By its name in the guest's `/etc/passwd`.
    Name(String),
    /// By number; supplementary groups come from `/etc/group` if the number has an entry in `/etc/passwd`.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
    },
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// An output stream of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It exited with this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// Why no process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum ExecFailure {
    /// There is no such program.
    #[error("no such program in the guest")]
    NotFound,
    /// The file is there but cannot be run.
    #[error("the file cannot be executed in the guest")]
    NotExecutable,
    /// The user is not known to the guest.
    #[error("no such user in the guest")]
    NoSuchUser,
    /// The working directory is not there.
    #[error("no such working directory in the guest")]
    NoSuchDirectory,
    /// [`super::MAX_EXECS`] commands run already.
    #[error("too many commands run at once in the guest")]
    TooMany,
    /// Anything else, by the guest's errno.
    #[error("the guest could not start the process (errno {0})")]
    Other(i32),
}

/// A step of `Configure`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConfigureStep {
    /// Setting the host name.
    Hostname,
    /// Mounting the share with this tag, and this entry behind a `/`.
    Mount(String),
    /// Setting the network up.
    Network,
}

/// Why `Configure` failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigureFailure {
    /// What failed.
    pub step: ConfigureStep,
    /// The guest's errno.
    pub errno: i32,
}

/// What the guest tells of its start. Hostile like all that it says: for display and statistics only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootFacts {
    /// Release of the kernel, as `uname -r` prints it.
    pub kernel: String,
    /// Nanoseconds of the kernel's monotonic clock when the guest program started.
    pub init_ns: u64,
    /// The same when it was ready.
    pub ready_ns: u64,
}
