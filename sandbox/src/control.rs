//! The channel between the host program and a worker of its: the plan goes down once, and orders to an egress worker; reports come
//! up. When it closes, the other end is gone: the worker then ends itself.

use std::io;

use bytes::{Buf as _, BytesMut};
use hv_core::Fault;
use netproxy::audit::Record;
use netproxy::proxy::Consent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::network::{Denied, Layer};
use crate::refusal::Refusal;
use crate::timeline::Phase;

/// Most bytes of one encoded report.
const MAX_REPORT: usize = 16 * 1024;
/// Most bytes of one encoded order: three layers of a policy.
const MAX_ORDER: usize = 4 << 20;

/// What a worker tells the host program.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// A phase of the start was reached, at a time of the host's monotonic clock in nanoseconds.
    Phase(Phase, u64),
    /// A device does not work any more; the machine goes on. One line for a person.
    Broken(String),
    /// The guest was kept from a file of a share.
    Refused(Refusal),
    /// The guest was kept from a connection or a request.
    Denied(Denied),
    /// The guest would have been kept from it, if the policy's mode were not audit.
    WouldBeDenied(Denied),
    /// Somebody may allow a connection, by an [`Order::Consent`] of this number.
    Question(u64, Denied),
    /// A line for the audit log of the network.
    Audit(Box<Record>),
    /// The order was carried out, or why not. There is one at a time.
    Done(Result<(), String>),
    /// The machine was not started.
    NotStarted(StartFailure),
    /// The machine ran and has ended.
    Ended(MachineEnd),
}

/// What the host program tells an egress worker after its plan.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum Order {
    /// From now on these layers of a policy decide. Before the first of them nothing is served.
    Policy(Vec<Layer>),
    /// Connections to the next listener ([`Role::Listeners`](crate::plan::Role)) go to this port of the guest's.
    Publish(u16),
    /// Questions are asked about what no rule allows.
    Ask,
    /// The answer to a question, if anybody gives one.
    Consent(u64, Option<Consent>),
}

impl Order {
    /// Whether a [`Report::Done`] says that it was carried out. The host program waits for that before it gives another one.
    pub(crate) const fn is_answered(&self) -> bool {
        !matches!(self, Self::Consent(..))
    }
}

/// Why a worker did not start the machine.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// Whose doing it is.
    pub(crate) fault: FaultCode,
    /// One line for a person.
    pub(crate) message: String,
}

/// [`Fault`] on the wire.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum FaultCode {
    Guest,
    Host,
    Caller,
}

impl From<FaultCode> for Fault {
    fn from(code: FaultCode) -> Self {
        match code {
            FaultCode::Guest => Self::Guest,
            FaultCode::Host => Self::Host,
            FaultCode::Caller => Self::Caller,
        }
    }
}

impl From<Fault> for FaultCode {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Guest => Self::Guest,
            Fault::Host => Self::Host,
            Fault::Caller => Self::Caller,
        }
    }
}

/// How a machine that ran came to its end, as the worker sees it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(crate) enum MachineEnd {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset.
    Reset,
    /// A processor cannot go on.
    Crash(String),
    /// The host's hypervisor failed.
    Hypervisor(String),
}

/// A message that does not decode: the other process was replaced or is broken.
#[derive(Debug, Error)]
#[error("a process of the sandbox sent a malformed message")]
pub(crate) struct MalformedMessage;

/// A message as bytes: a little-endian length and the body.
pub(crate) fn encode(message: &impl Serialize) -> Vec<u8> {
    let body = postcard::to_stdvec(message).unwrap_or_default();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    [&length.to_le_bytes(), body.as_slice()].concat()
}

/// Writes a report to the host program.
pub(crate) fn send(mut stream: impl io::Write, report: &Report) -> io::Result<()> {
    stream.write_all(&encode(report))
}

/// Takes the first report from `buffer`, if it is whole.
pub(crate) fn decode(buffer: &mut BytesMut) -> Result<Option<Report>, MalformedMessage> {
    take(buffer, MAX_REPORT)
}

/// Takes the first order from `buffer`, if it is whole.
pub(crate) fn decode_order(buffer: &mut BytesMut) -> Result<Option<Order>, MalformedMessage> {
    take(buffer, MAX_ORDER)
}

fn take<T: DeserializeOwned>(
    buffer: &mut BytesMut,
    longest: usize,
) -> Result<Option<T>, MalformedMessage> {
    let Some((length, rest)) = buffer.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
    if length > longest {
        return Err(MalformedMessage);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let message = postcard::from_bytes(body).map_err(|_| MalformedMessage)?;
    buffer.advance(4 + length);
    Ok(Some(message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkPolicy;
    use crate::plan::PolicyLayer;
    use crate::refusal::RefusalReason;

    fn reports() -> Vec<Report> {
        vec![
            Report::Phase(Phase::VcpuEntered, 17),
            Report::Broken("virtio-fs device: why".into()),
            Report::NotStarted(StartFailure {
                fault: FaultCode::Caller,
                message: "no".into(),
            }),
            Report::Refused(Refusal {
                reason: RefusalReason::Protected,
                path: "a/.git/hooks".into(),
            }),
            Report::Denied(Denied {
                destination: "a.example:443".into(),
                reason: "no rule allows it".into(),
                rule: None,
            }),
            Report::WouldBeDenied(Denied {
                destination: "b.example:443".into(),
                reason: "no rule allows it".into(),
                rule: Some("x".into()),
            }),
            Report::Audit(Box::new(Record::lost(17, 4))),
            Report::Done(Err("no".into())),
            Report::Ended(MachineEnd::Crash("triple fault".into())),
        ]
    }

    #[test]
    fn reports_come_out_whole_however_they_are_cut() {
        let bytes: Vec<u8> = reports().iter().flat_map(encode).collect();
        for cut in 1..bytes.len() {
            let (mut buffer, mut got) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some(report) = decode(&mut buffer).unwrap() {
                    got.push(report);
                }
            }
            assert_eq!(got, reports());
        }
    }

    #[test]
    fn a_policy_of_the_largest_layers_is_one_order() {
        let layer = |whose| Layer {
            whose,
            origin: "x".repeat(NetworkPolicy::LONGEST_ORIGIN),
            text: vec![b'#'; NetworkPolicy::LARGEST_LAYER],
        };
        let layers = [
            PolicyLayer::Global,
            PolicyLayer::Sandbox,
            PolicyLayer::Repository,
        ];
        let order = Order::Policy(layers.map(layer).to_vec());
        let mut buffer = BytesMut::from(&*encode(&order));
        assert_eq!(decode_order(&mut buffer).unwrap(), Some(order));
        assert!(buffer.is_empty());
    }

    #[test]
    fn nonsense_is_refused() {
        for bytes in [vec![0xff; 8], vec![1, 0, 0, 0, 99]] {
            assert!(decode(&mut BytesMut::from(&*bytes)).is_err(), "{bytes:?}");
        }
    }
}
