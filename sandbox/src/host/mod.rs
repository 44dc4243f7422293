//! The host program's half: checks the settings, starts the worker, follows it.

mod audit;
mod budget;
mod console;
mod network;
mod places;
mod prepare;
mod process;
mod transfer;

pub(crate) use audit::{AuditState, AuditWriter, now};
pub(crate) use budget::available as available_memory;
pub(crate) use console::Console;
pub(crate) use network::{EgressStart, EgressWorker, Published};
pub(crate) use prepare::{Prepared, prepare};
pub(crate) use process::{TakesNoOrders, WorkerProcess, into_tokio, pipe_receiver};
#[cfg(test)]
pub(crate) use transfer::send_descriptor;
pub(crate) use transfer::{receive_descriptor, receive_plan};
