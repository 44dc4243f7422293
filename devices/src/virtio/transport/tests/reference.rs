//! V06: random register sequences against a reference that keeps every write and works out each
//! answer from the whole history.

use proptest::prelude::*;

use super::super::core::{Core, Half, Register, Request, RingPart};
use crate::virtio::{Model, QueueState, features};

const SIZES: [u16; 3] = [256, 64, 1];
const OFFERED: u64 = 0b101 | features::RING;

fn place(index: u32) -> usize {
    usize::try_from(index).unwrap()
}

fn word(value: u64) -> u32 {
    u32::try_from(value & 0xffff_ffff).unwrap()
}

fn model() -> Model {
    Model {
        id: 42,
        features: 0b101,
        queue_sizes: SIZES.to_vec(),
        config_len: 0,
    }
}

/// Every write since the last reset, and the status after each.
#[derive(Debug, Default)]
struct History(Vec<(Register, u32)>, Vec<u32>);

impl History {
    /// The last value written to `register`, at or before `end`.
    fn last(&self, register: Register, end: usize) -> u32 {
        let before = self.0[..end].iter().rev();
        before
            .filter(|(r, _)| *r == register)
            .map(|(_, value)| *value)
            .next()
            .unwrap_or(0)
    }

    /// The features chosen by the writes before `end` that counted.
    fn features_at(&self, end: usize) -> u64 {
        let mut halves = [0, 0];
        for at in 0..end {
            let (register, value) = self.0[at];
            let select = self.last(Register::DriverFeaturesSel, at);
            let open = self.status_at(at) & 8 == 0;
            if register == Register::DriverFeatures && select < 2 && open {
                halves[place(select)] = u64::from(value);
            }
        }
        halves[0] | halves[1] << 32
    }

    fn status_at(&self, end: usize) -> u32 {
        end.checked_sub(1).map_or(0, |last| self.1[last])
    }

    fn push(&mut self, register: Register, value: u32) {
        let at = self.0.len();
        let mut status = self.status_at(at);
        if register == Register::Status {
            let chosen = self.features_before(at, status);
            let agreed = chosen & !OFFERED == 0 && chosen >> 32 & 1 == 1;
            status |= value & 128;
            for (bit, needs, allowed) in [(1, 0, true), (2, 1, true), (8, 2, agreed), (4, 8, true)]
            {
                let ready = needs == 0 || status & needs != 0;
                if value & bit != 0 && ready && allowed {
                    status |= bit;
                }
            }
        }
        self.0.push((register, value));
        self.1.push(status);
    }

    /// The features that count for the status write at `at`.
    fn features_before(&self, at: usize, status: u32) -> u64 {
        // Frozen ones passed already.
        if status & 8 != 0 {
            features::VERSION_1
        } else {
            self.features_at(at)
        }
    }

    fn queue(&self, index: u32) -> QueueState {
        let max = SIZES[place(index)];
        let mut queue = QueueState {
            size: max,
            ..QueueState::default()
        };
        for at in 0..self.0.len() {
            let (register, value) = self.0[at];
            let selected = self.last(Register::QueueSel, at) == index;
            if !selected || self.status_at(at) & 4 != 0 {
                continue;
            }
            match register {
                Register::QueueSize => {
                    let size = u16::try_from(value).unwrap_or(0);
                    queue.size = if size <= max { size } else { 0 };
                }
                Register::QueueReady => queue.ready = value % 2 == 1,
                Register::QueueAddress(part, half) => {
                    let field = match part {
                        RingPart::Descriptors => &mut queue.descriptors,
                        RingPart::Available => &mut queue.available,
                        RingPart::Used => &mut queue.used,
                    };
                    let mut bytes = field.to_le_bytes();
                    let at = if half == Half::Low { 0 } else { 4 };
                    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
                    *field = u64::from_le_bytes(bytes);
                }
                _ => {}
            }
        }
        let end = self.0.len();
        if self.status_at(end) & 4 != 0 {
            queue.event_idx = self.features_at(end) >> 29 & 1 == 1;
            queue.indirect = self.features_at(end) >> 28 & 1 == 1;
        }
        queue
    }

    fn read(&self, register: Register) -> u32 {
        let end = self.0.len();
        let selected = self.last(Register::QueueSel, end);
        match register {
            Register::DeviceId => 42,
            Register::DeviceFeatures => match self.last(Register::DeviceFeaturesSel, end) {
                0 => word(OFFERED),
                1 => word(OFFERED >> 32),
                _ => 0,
            },
            Register::QueueSizeMax if selected < 3 => u32::from(SIZES[place(selected)]),
            Register::QueueReady if selected < 3 => u32::from(self.queue(selected).ready),
            Register::Status => self.status_at(end),
            _ => 0,
        }
    }
}

fn registers() -> Vec<Register> {
    let parts = [RingPart::Descriptors, RingPart::Available, RingPart::Used];
    let addresses = parts
        .into_iter()
        .flat_map(|part| [Half::Low, Half::High].map(|half| Register::QueueAddress(part, half)));
    let plain = [
        Register::DeviceId,
        Register::DeviceFeatures,
        Register::DeviceFeaturesSel,
        Register::DriverFeatures,
        Register::DriverFeaturesSel,
        Register::QueueSel,
        Register::QueueSizeMax,
        Register::QueueSize,
        Register::QueueReady,
        Register::Status,
    ];
    plain.into_iter().chain(addresses).collect()
}

/// Writes that lead somewhere, and some that lead nowhere.
fn write() -> impl Strategy<Value = (Register, u32)> {
    let status = prop_oneof![
        1 => Just(0_u32),
        12 => prop::sample::select(vec![1_u32, 3, 11, 15, 15, 139]),
        1 => any::<u32>(),
    ];
    let halves = prop::sample::select(vec![0_u32, 1, 5, 1 << 28, 3 << 28 | 1, 2]);
    prop_oneof![
        4 => status.prop_map(|value| (Register::Status, value)),
        2 => halves.prop_map(|value| (Register::DriverFeatures, value)),
        2 => Just((Register::DriverFeatures, 1)),
        3 => (0_u32..3).prop_map(|value| (Register::DriverFeaturesSel, value)),
        2 => (0_u32..4).prop_map(|value| (Register::QueueSel, value)),
        2 => (0_u32..300).prop_map(|value| (Register::QueueSize, value)),
        6 => (prop::sample::select(registers()), any::<u32>()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn v06_any_sequence_of_writes_gives_the_reference_state(
        agree: bool,
        writes in prop::collection::vec(write(), 0..40),
    ) {
        let mut core = Core::new(model());
        let mut history = History::default();
        // Half of the sequences begin with an agreement, or few would ever become active.
        let prefix = [
            (Register::DriverFeaturesSel, 1),
            (Register::DriverFeatures, 1),
            (Register::Status, 1),
            (Register::Status, 3),
            (Register::Status, 11),
        ];
        let prefix = prefix.into_iter().filter(|_| agree);
        for (register, value) in prefix.chain(writes) {
            let before = history.status_at(history.0.len());
            let request = core.write(register, value);
            history.push(register, value);
            let mut expected = Request::Nothing;
            if (register, value) == (Register::Status, 0) {
                expected = Request::Reset;
                core.reset();
                history = History::default();
            } else if history.status_at(history.0.len()) & !before & 4 != 0 {
                expected = Request::Start;
            }
            prop_assert_eq!(request, expected);
        }
        for register in registers() {
            prop_assert_eq!(core.read(register), history.read(register), "{:?}", register);
        }
        let queues: Vec<_> = (0..3).map(|index| history.queue(index)).collect();
        prop_assert_eq!(core.queues(), queues);
        prop_assert_eq!(core.features(), history.features_at(history.0.len()));
    }
}

#[test]
fn a_reset_core_is_a_new_one() {
    let mut core = Core::new(model());
    for register in registers() {
        core.write(register, 7);
    }
    core.reset();
    assert_eq!(core, Core::new(model()));
}

#[test]
fn only_as_many_queues_as_there_are_can_be_kept() {
    let mut core = Core::new(model());
    let before = core.queues();
    core.keep(Vec::new());
    assert_eq!(core.queues(), before);
    let mut moved = before;
    moved[0].next_avail = 9;
    core.keep(moved.clone());
    assert_eq!(core.queues(), moved);
}
