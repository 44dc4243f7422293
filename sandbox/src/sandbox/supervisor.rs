//! Follows the vmm worker of a sandbox to its end.

use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use hv_core::Fault;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{DRAIN_LIMIT, End, Watched};
use crate::control::{MachineEnd, Report};
use crate::error::EndReason;
use crate::host::{AuditState, Console, WorkerProcess};
use crate::text::printable;
use crate::timeline::Phase;

/// The supervisor, which ends with its handle, and the worker with it.
#[derive(Debug)]
pub(super) struct Supervision {
    task: JoinHandle<()>,
    leash: Option<UnixStream>,
}

impl Drop for Supervision {
    fn drop(&mut self) {
        self.task.abort();
        // The task may not be polled again; this reaches the worker all the same. It fails only
        // when the worker is gone.
        let _ = self
            .leash
            .as_ref()
            .map(|leash| leash.shutdown(Shutdown::Both));
    }
}

/// Follows the worker; what it tells is in the first, and it ends with the second.
pub(super) fn supervise(
    mut process: WorkerProcess,
    console_stream: Receiver,
    console: Console,
    audited: Option<AuditState>,
) -> (Watched, Supervision) {
    let leash = process.take_leash();
    let (sender, end) = watch::channel(None);
    let watched = Watched::new(console, audited, end);
    let supervisor = Supervisor {
        process,
        console_stream,
        watched: watched.clone(),
        killed: false,
    };
    let task = tokio::spawn(async move {
        let end = supervisor.run().await;
        // Nobody may be listening any more.
        drop(sender.send(Some(end)));
    });
    (watched, Supervision { task, leash })
}

struct Supervisor {
    process: WorkerProcess,
    console_stream: Receiver,
    watched: Watched,
    killed: bool,
}

impl Supervisor {
    async fn run(mut self) -> End {
        let mut last = None;
        let mut buffer = vec![0; 16 << 10];
        loop {
            tokio::select! {
                report = self.process.report() => match report {
                    Some(Ok(Report::Phase(phase, at))) => {
                        self.watched.mark(phase, at);
                        if let Err(message) = self.room(phase) {
                            return self.give_up(message).await;
                        }
                    }
                    Some(Ok(Report::Broken(device))) => self.watched.note_broken(&device),
                    Some(Ok(Report::Refused(refusal))) => self.watched.note_refusal(&refusal),
                    // It has no network to tell of.
                    Some(Ok(
                        Report::Denied(_)
                        | Report::WouldBeDenied(_)
                        | Report::Audit(_)
                        | Report::Done(_),
                    )) => {}
                    Some(Ok(report)) => last = Some(report),
                    Some(Err(_)) | None => break,
                },
                read = self.console_stream.read(&mut buffer) => match read {
                    Ok(count) if count > 0 => self.take_console(&buffer, count),
                    // The worker has closed it, so it is about to end.
                    _ => break,
                },
                () = self.watched.kill.notified() => {
                    self.killed = true;
                    self.process.kill();
                }
            }
        }
        self.finish(last, &mut buffer).await
    }

    fn room(&self, phase: Phase) -> Result<(), String> {
        if phase == Phase::Confined {
            self.process.room()
        } else {
            Ok(())
        }
    }

    async fn give_up(mut self, message: String) -> End {
        self.process.kill();
        self.process.wait().await;
        End::NotStarted(Fault::Host, message)
    }

    fn take_console(&self, buffer: &[u8], count: usize) {
        self.watched
            .console
            .append(buffer.get(..count).unwrap_or_default());
    }

    /// Takes what is left in the pipes of a worker that is ending. One that closed its channel but
    /// goes on is not waited for.
    async fn finish(mut self, mut last: Option<Report>, buffer: &mut [u8]) -> End {
        let drain = async {
            while let Some(Ok(report)) = self.process.report().await {
                match report {
                    Report::Phase(..)
                    | Report::Broken(_)
                    | Report::Denied(_)
                    | Report::WouldBeDenied(_)
                    | Report::Audit(_)
                    | Report::Done(_) => {}
                    Report::Refused(refusal) => self.watched.note_refusal(&refusal),
                    report => last = Some(report),
                }
            }
            while let Ok(count @ 1..) = self.console_stream.read(buffer).await {
                let bytes = buffer.get(..count).unwrap_or_default();
                self.watched.console.append(bytes);
            }
        };
        tokio::select! {
            () = drain => {}
            () = self.watched.kill.notified() => self.killed = true,
            () = tokio::time::sleep(DRAIN_LIMIT) => {}
        }
        self.process.kill();
        let words = self.process.wait().await;
        self.end(last, words.to_string())
    }

    fn end(&self, last: Option<Report>, words: String) -> End {
        match last {
            Some(Report::NotStarted(failure)) => {
                End::NotStarted(failure.fault.into(), printable(&failure.message))
            }
            Some(Report::Ended(end)) => End::Ran(self.reason(end)),
            _ if self.killed => End::Ran(EndReason::Killed),
            _ => End::Ran(EndReason::WorkerDied(words)),
        }
    }

    fn reason(&self, end: MachineEnd) -> EndReason {
        match (end, self.watched.console.panic_reason()) {
            (MachineEnd::Reset | MachineEnd::Crash(_), Some(reason)) => EndReason::Panicked(reason),
            (MachineEnd::PowerOff, _) => EndReason::PoweredOff,
            (MachineEnd::Reset, None) => EndReason::Rebooted,
            (MachineEnd::Crash(text), None) => EndReason::Crashed(printable(&text)),
            (MachineEnd::Hypervisor(text), _) => EndReason::Hypervisor(printable(&text)),
        }
    }
}
