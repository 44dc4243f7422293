//! The state machine behind a virtio device's registers (virtio 1.3 sections 2 and 3.1).
//!
//! Plain data, no locks, threads or I/O. Rules that it enforces, whatever the driver writes:
//! * status bits are gained in the order of section 3.1.1 and lost only by a reset;
//! * `FEATURES_OK` sticks only for a subset of what was offered that contains `VERSION_1`, and
//!   freezes the features;
//! * `DRIVER_OK` freezes the queue registers until a reset.

use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK,
};

use crate::virtio::{Model, QueueState, features};

/// The steps of initialisation, in order.
const STEPS: [u32; 4] = [
    VIRTIO_CONFIG_S_ACKNOWLEDGE,
    VIRTIO_CONFIG_S_DRIVER,
    VIRTIO_CONFIG_S_FEATURES_OK,
    VIRTIO_CONFIG_S_DRIVER_OK,
];

/// A register of the state machine. Those of interrupts and notifications need none.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Register {
    DeviceId,
    DeviceFeatures,
    DeviceFeaturesSel,
    DriverFeatures,
    DriverFeaturesSel,
    QueueSel,
    QueueSizeMax,
    QueueSize,
    QueueReady,
    Status,
    /// Half of a ring address of the selected queue.
    QueueAddress(RingPart, Half),
}

/// The parts of a split queue.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum RingPart {
    Descriptors,
    Available,
    Used,
}

/// Half of a 64-bit value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Half {
    Low,
    High,
}

impl Half {
    const fn shift(self) -> u32 {
        match self {
            Self::Low => 0,
            Self::High => 32,
        }
    }

    /// `value` with this half replaced.
    fn put(self, value: u64, half: u32) -> u64 {
        value & !(u64::from(u32::MAX) << self.shift()) | u64::from(half) << self.shift()
    }

    fn get(self, value: u64) -> u32 {
        u32::try_from(value >> self.shift() & u64::from(u32::MAX)).unwrap_or_default()
    }
}

/// What a register write asks the transport to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Request {
    Nothing,
    /// The driver is ready: start the device.
    Start,
    /// The driver resets the device.
    Reset,
}

/// The registers of one device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Core {
    model: Model,
    status: u32,
    device_features_sel: u32,
    driver_features_sel: u32,
    driver_features: u64,
    queue_sel: u32,
    queues: Vec<QueueState>,
}

impl Core {
    pub(crate) fn new(model: Model) -> Self {
        let queues = vec![QueueState::default(); model.queue_sizes.len()];
        let mut core = Self {
            model,
            status: 0,
            device_features_sel: 0,
            driver_features_sel: 0,
            driver_features: 0,
            queue_sel: 0,
            queues,
        };
        core.reset();
        core
    }

    /// What a driver may choose from.
    const fn offered(&self) -> u64 {
        self.model.features | features::RING
    }

    /// The features that the driver chose.
    pub(crate) const fn features(&self) -> u64 {
        self.driver_features
    }

    /// The driver said that it is ready, and did not reset since.
    pub(crate) const fn is_active(&self) -> bool {
        self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
    }

    /// The queues as they are to be started.
    pub(crate) fn queues(&self) -> Vec<QueueState> {
        self.queues.clone()
    }

    /// Keeps the queues of a device that was stopped.
    pub(crate) fn keep(&mut self, queues: Vec<QueueState>) {
        if queues.len() == self.queues.len() {
            self.queues = queues;
        }
    }

    /// Back to power-on, but for what the device is.
    pub(crate) fn reset(&mut self) {
        let Self {
            model,
            status,
            device_features_sel,
            driver_features_sel,
            driver_features,
            queue_sel,
            queues,
        } = self;
        (*status, *queue_sel, *driver_features) = (0, 0, 0);
        (*device_features_sel, *driver_features_sel) = (0, 0);
        for (queue, max) in queues.iter_mut().zip(&model.queue_sizes) {
            *queue = QueueState {
                size: *max,
                ..QueueState::default()
            };
        }
    }

    pub(crate) fn read(&self, register: Register) -> u32 {
        match register {
            Register::DeviceId => self.model.id,
            Register::DeviceFeatures => match self.device_features_sel {
                0 => Half::Low.get(self.offered()),
                1 => Half::High.get(self.offered()),
                _ => 0,
            },
            Register::QueueSizeMax => {
                let max = self
                    .selected()
                    .and_then(|at| self.model.queue_sizes.get(at));
                max.copied().map_or(0, u32::from)
            }
            Register::QueueReady => {
                let queue = self.selected().and_then(|at| self.queues.get(at));
                u32::from(queue.is_some_and(|queue| queue.ready))
            }
            Register::Status => self.status,
            // Write-only.
            Register::DeviceFeaturesSel
            | Register::DriverFeatures
            | Register::DriverFeaturesSel
            | Register::QueueSel
            | Register::QueueSize
            | Register::QueueAddress(..) => 0,
        }
    }

    pub(crate) fn write(&mut self, register: Register, value: u32) -> Request {
        match register {
            Register::DeviceFeaturesSel => self.device_features_sel = value,
            Register::DriverFeaturesSel => self.driver_features_sel = value,
            Register::DriverFeatures => self.choose_features(value),
            Register::QueueSel => self.queue_sel = value,
            Register::Status => return self.set_status(value),
            Register::QueueSize | Register::QueueReady | Register::QueueAddress(..) => {
                self.set_queue(register, value);
            }
            // Read-only.
            Register::DeviceId | Register::DeviceFeatures | Register::QueueSizeMax => {}
        }
        Request::Nothing
    }

    fn selected(&self) -> Option<usize> {
        usize::try_from(self.queue_sel).ok()
    }

    fn choose_features(&mut self, half: u32) {
        if self.status & VIRTIO_CONFIG_S_FEATURES_OK != 0 {
            return;
        }
        let part = match self.driver_features_sel {
            0 => Half::Low,
            1 => Half::High,
            _ => return,
        };
        self.driver_features = part.put(self.driver_features, half);
    }

    fn set_status(&mut self, value: u32) -> Request {
        if value == 0 {
            return Request::Reset;
        }
        let before = self.status;
        self.status |= value & VIRTIO_CONFIG_S_FAILED;
        for step in STEPS {
            if (self.status | value) & step == 0 || !self.allows(step) {
                break;
            }
            self.status |= step;
        }
        let started = self.status & !before & VIRTIO_CONFIG_S_DRIVER_OK != 0;
        if started {
            self.freeze();
            Request::Start
        } else {
            Request::Nothing
        }
    }

    const fn allows(&self, step: u32) -> bool {
        let chosen = self.driver_features;
        let sound = chosen & !self.offered() == 0 && chosen & features::VERSION_1 != 0;
        step != VIRTIO_CONFIG_S_FEATURES_OK || sound
    }

    /// The negotiated ring features become part of each queue.
    fn freeze(&mut self) {
        for queue in &mut self.queues {
            queue.event_idx = self.driver_features & features::EVENT_IDX != 0;
            queue.indirect = self.driver_features & features::INDIRECT_DESC != 0;
        }
    }

    fn set_queue(&mut self, register: Register, value: u32) {
        let index = self.selected().filter(|_| !self.is_active());
        let Some(index) = index else { return };
        let (Some(queue), Some(max)) = (
            self.queues.get_mut(index),
            self.model.queue_sizes.get(index),
        ) else {
            return;
        };
        match register {
            // A size that cannot be makes the start fail.
            Register::QueueSize => {
                let size = u16::try_from(value).ok().filter(|size| size <= max);
                queue.size = size.unwrap_or(0);
            }
            Register::QueueReady => queue.ready = value & 1 != 0,
            Register::QueueAddress(part, half) => {
                let address = match part {
                    RingPart::Descriptors => &mut queue.descriptors,
                    RingPart::Available => &mut queue.available,
                    RingPart::Used => &mut queue.used,
                };
                *address = half.put(*address, value);
            }
            _ => {}
        }
    }
}
