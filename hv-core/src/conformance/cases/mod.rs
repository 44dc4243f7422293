//! The cases, by topic, and what they share.

mod doorbell;
mod ends;
mod io;
mod irq;
mod kick;
mod memory;
mod state;

use std::fmt::Debug;
use std::sync::LazyLock;

use vm_memory::{Bytes as _, GuestAddress};

use super::probe::Failure;
use super::run::Case;
use super::{Running, Touch, port};
use crate::arch::x86_64::asm::{Program, Width};
use crate::{DoorbellSpace, Fault, GuestRam, Outcome, Result as HvResult, Stop};

type Checked = Result<(), Failure>;

/// A topic's table.
macro_rules! table {
    ($($case:ident)*) => {
        pub(super) const TABLE: &[crate::conformance::Case] = &[$(crate::conformance::Case {
            name: stringify!($case),
            body: $case,
        }),*];
    };
}
use table;

/// Every topic's cases.
pub(super) const ALL: [&[Case]; 7] = [
    io::TABLE,
    memory::TABLE,
    kick::TABLE,
    irq::TABLE,
    ends::TABLE,
    state::TABLE,
    doorbell::TABLE,
];

/// The end of a program: power off.
static DONE: LazyLock<Program> = LazyLock::new(|| {
    let mut program = Program::new();
    program.out(port::DONE, Width::W1, port::POWER_OFF).spin();
    program
});

fn equal<T: PartialEq + Debug + ?Sized>(what: &str, actual: &T, expected: &T) -> Checked {
    ensure(
        &format!("{what}: got {actual:x?}, not {expected:x?}"),
        actual == expected,
    )
}

fn ensure(what: &str, holds: bool) -> Checked {
    if holds {
        return Ok(());
    }
    Err(Failure::Broken(what.to_owned()))
}

/// The guest powers off by itself.
fn ended(running: Running) -> Checked {
    equal(
        "outcome",
        &running.wait(),
        &Outcome::Stopped(Stop::PowerOff),
    )
}

/// A mistake of ours is refused, and called ours.
fn caller_fault<T>(what: &str, result: HvResult<T>) -> Checked {
    match result {
        Err(error) if error.fault() == Fault::Caller => Ok(()),
        Err(error) => Err(Failure::Broken(format!("{what}: not our fault? {error:?}"))),
        Ok(_) => Err(Failure::Broken(format!("{what}: accepted"))),
    }
}

/// What the contract lets a backend leave out.
fn facet<'a, T: ?Sized>(name: &str, facet: Option<&'a T>) -> Result<&'a T, Failure> {
    facet.ok_or_else(|| Failure::Skip(format!("this hypervisor has no {name}")))
}

fn read_u64(ram: &GuestRam, address: u64) -> Result<u64, Failure> {
    ram.read_obj(GuestAddress(address))
        .map_err(|error| Failure::Broken(error.to_string()))
}

fn write_at(space: DoorbellSpace, address: u64, bytes: &[u8]) -> Touch {
    Touch {
        space,
        address,
        bytes: bytes.to_vec(),
        write: true,
    }
}

fn read_at(space: DoorbellSpace, address: u64, bytes: &[u8]) -> Touch {
    Touch {
        write: false,
        ..write_at(space, address, bytes)
    }
}
