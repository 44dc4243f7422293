//! What every virtio device does alike; see [`crate::device_contract_tests`].

use virtio_bindings::virtio_config as config;
use virtio_bindings::virtio_mmio as offsets;

use super::{Descriptor, Driver};
use crate::bus::BusDevice as _;
use crate::virtio::{VirtioDevice, features};

/// Makes a new device.
pub type Make<'a> = &'a dyn Fn() -> Box<dyn VirtioDevice>;

const RUNNING: u32 = config::VIRTIO_CONFIG_S_ACKNOWLEDGE
    | config::VIRTIO_CONFIG_S_DRIVER
    | config::VIRTIO_CONFIG_S_FEATURES_OK
    | config::VIRTIO_CONFIG_S_DRIVER_OK;

/// The device can be reset, set up and used.
fn assert_alive(driver: &mut Driver) {
    driver.init(u64::MAX);
    driver.settle();
    assert_eq!(driver.status(), RUNNING, "{:?}", driver.transport.failure());
}

/// Section 4.2.2: magic, version, identity, features, queue sizes.
pub fn discovery_registers_answer_the_model(make: Make<'_>) {
    let driver = Driver::new(make());
    let model = driver.model().clone();
    assert_eq!(driver.read(offsets::VIRTIO_MMIO_MAGIC_VALUE), 0x7472_6976);
    assert_eq!(driver.read(offsets::VIRTIO_MMIO_VERSION), 2);
    assert_eq!(driver.read(offsets::VIRTIO_MMIO_DEVICE_ID), model.id);
    assert_eq!(driver.offered(), model.features | features::RING);
    driver.write(offsets::VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_eq!(driver.read(offsets::VIRTIO_MMIO_DEVICE_FEATURES), 0);
    let maximum = |index| {
        driver.write(offsets::VIRTIO_MMIO_QUEUE_SEL, index);
        driver.read(offsets::VIRTIO_MMIO_QUEUE_NUM_MAX)
    };
    let count = u32::try_from(model.queue_sizes.len()).unwrap();
    for (index, size) in (0..).zip(&model.queue_sizes) {
        assert!(size.is_power_of_two());
        assert_eq!(maximum(index), u32::from(*size));
    }
    for index in [count, count + 1, 0xffff, 0x1_0000, 0x8000_0000, u32::MAX] {
        assert_eq!(maximum(index), 0);
    }
}

/// Section 3.1.1 step 5 and 6.1.
pub fn version_1_is_required_and_unknown_features_refused(make: Make<'_>) {
    let driver = Driver::new(make());
    let offered = driver.offered();
    assert!(!driver.negotiate(0));
    assert!(!driver.negotiate(offered & !features::VERSION_1));
    for bit in (0..64).filter(|bit| offered >> bit & 1 == 0) {
        assert!(
            !driver.negotiate(features::VERSION_1 | 1 << bit),
            "bit {bit}"
        );
    }
    assert!(driver.negotiate(features::VERSION_1));
    assert!(driver.negotiate(offered));
    driver.write(offsets::VIRTIO_MMIO_DRIVER_FEATURES, u32::MAX);
    driver.add_status(config::VIRTIO_CONFIG_S_DRIVER_OK);
    assert_eq!(driver.status(), RUNNING, "features are frozen");
}

/// Section 3.1.1: no step before the one that it follows; none is lost but by a reset.
pub fn status_bits_come_in_order(make: Make<'_>) {
    let driver = Driver::new(make());
    for early in [
        config::VIRTIO_CONFIG_S_DRIVER,
        config::VIRTIO_CONFIG_S_FEATURES_OK,
        config::VIRTIO_CONFIG_S_DRIVER_OK,
        config::VIRTIO_CONFIG_S_NEEDS_RESET,
    ] {
        driver.write(offsets::VIRTIO_MMIO_STATUS, early);
        assert_eq!(driver.status(), 0, "{early}");
    }
    assert!(driver.negotiate(features::VERSION_1));
    let before = driver.status();
    driver.write(offsets::VIRTIO_MMIO_STATUS, 1);
    assert_eq!(driver.status(), before, "a bit was lost");
    driver.write(offsets::VIRTIO_MMIO_STATUS, u32::MAX);
    assert_eq!(driver.status(), RUNNING | config::VIRTIO_CONFIG_S_FAILED);
    driver.reset();
    assert_eq!(driver.status(), 0);
}

/// A reset in every state of the initialisation leaves a device as new.
pub fn reset_works_in_every_state(make: Make<'_>) {
    let mut driver = Driver::new(make());
    let steps: [fn(&mut Driver); 5] = [
        |driver| driver.add_status(config::VIRTIO_CONFIG_S_ACKNOWLEDGE),
        |driver| assert!(driver.negotiate(features::VERSION_1)),
        Driver::set_queues,
        |driver| driver.add_status(config::VIRTIO_CONFIG_S_DRIVER_OK),
        |driver| (0..driver.rings.len()).for_each(|queue| driver.kick(queue)),
    ];
    for count in 0..=steps.len() {
        for step in &steps[..count] {
            step(&mut driver);
        }
        driver.reset();
        assert_eq!(driver.status(), 0);
        for index in 0..driver.model().queue_sizes.len() {
            let index = u32::try_from(index).unwrap();
            driver.write(offsets::VIRTIO_MMIO_QUEUE_SEL, index);
            assert_eq!(driver.read(offsets::VIRTIO_MMIO_QUEUE_READY), 0);
        }
    }
    assert_alive(&mut driver);
}

/// V06: nothing that a driver writes to a queue's registers while the device is active counts.
pub fn queue_registers_are_frozen_while_active(make: Make<'_>) {
    let driver = Driver::running(make());
    let before = driver.queue_states();
    for index in 0..=before.len() {
        let index = u32::try_from(index).unwrap();
        driver.write(offsets::VIRTIO_MMIO_QUEUE_SEL, index);
        for offset in (offsets::VIRTIO_MMIO_QUEUE_NUM..offsets::VIRTIO_MMIO_QUEUE_NOTIFY)
            .chain(offsets::VIRTIO_MMIO_QUEUE_DESC_LOW..=offsets::VIRTIO_MMIO_QUEUE_USED_HIGH)
            .step_by(4)
        {
            for value in [0, 1, 0x1000, u32::MAX] {
                driver.write(offset, value);
            }
        }
    }
    assert_eq!(driver.queue_states(), before);
    assert_eq!(driver.status(), RUNNING);
}

/// The rings of a session have no meaning for the next.
pub fn queues_restart_elsewhere_after_a_reset(make: Make<'_>) {
    let mut driver = Driver::running(make());
    let first: Vec<_> = driver.rings.iter().map(|ring| ring.descriptors).collect();
    assert_alive(&mut driver);
    for (state, old) in driver.queue_states().iter().zip(first) {
        assert_ne!(state.descriptors, old);
        assert_eq!((state.next_avail, state.next_used), (0, 0));
    }
}

/// Invariant 5: the only way out of running returns what is needed to go on.
pub fn pause_keeps_every_queue_and_resume_goes_on(make: Make<'_>) {
    let mut driver = Driver::running(make());
    for queue in 0..driver.rings.len() {
        let buffer = driver.writable(64);
        driver.push(queue, 0, &[buffer]);
        driver.kick(queue);
    }
    driver.settle();
    let states = driver.queue_states();
    assert_eq!(states.len(), driver.model().queue_sizes.len());
    for (state, ring) in states.iter().zip(&driver.rings) {
        assert_eq!(state.next_used, ring.used_index());
        assert_eq!(state.descriptors, ring.descriptors);
        assert!(state.ready && state.size == ring.size);
    }
    driver.settle();
    assert_eq!(driver.queue_states(), states, "a pause changed something");
    assert_eq!(driver.status(), RUNNING);
}

/// V01 to V03, V05, V08, V15: a ring that breaks the rules stops the device, and only until a reset.
pub fn malformed_chains_need_a_reset_and_no_more(make: Make<'_>) {
    let mut driver = Driver::running(make());
    for (name, break_ring) in MALFORMED {
        let mut noticed = 0;
        for queue in 0..driver.rings.len() {
            driver.init(u64::MAX);
            break_ring(&mut driver, queue);
            driver.kick(queue);
            driver.settle();
            noticed += usize::from(driver.needs_reset());
            let used = driver.rings[queue].used_index();
            assert_eq!(used, 0, "{name}: queue {queue} completed it");
        }
        // A queue that the device has nothing to send on is not looked at.
        assert!(noticed > 0, "{name}: not noticed on any queue");
        assert_alive(&mut driver);
    }
}

type Break = fn(&mut Driver, usize);

const MALFORMED: [(&str, Break); 12] = [
    ("available index jumps", |driver, queue| {
        let ring = &mut driver.rings[queue];
        ring.set_available_index(ring.size + 1);
    }),
    ("available index goes back", |driver, queue| {
        driver.rings[queue].set_available_index(u16::MAX);
    }),
    ("head past the table", |driver, queue| {
        let ring = &mut driver.rings[queue];
        ring.push(ring.size);
    }),
    ("next past the table", |driver, queue| {
        let mut buffer = driver.writable(8);
        (buffer.flags, buffer.next) = (buffer.flags | Descriptor::NEXT, u16::MAX);
        driver.rings[queue].set_descriptor(0, buffer);
        driver.rings[queue].push(0);
    }),
    ("loop of one", |driver, queue| {
        let mut buffer = driver.writable(8);
        (buffer.flags, buffer.next) = (buffer.flags | Descriptor::NEXT, 0);
        driver.rings[queue].set_descriptor(0, buffer);
        driver.rings[queue].push(0);
    }),
    ("buffer in the hole", |driver, queue| {
        let address = Driver::HOLE;
        let buffer = driver.writable(8);
        driver.push(queue, 0, &[Descriptor { address, ..buffer }]);
    }),
    ("buffer reaches into the hole", |driver, queue| {
        let address = Driver::HOLE - 4;
        let buffer = driver.writable(8);
        driver.push(queue, 0, &[Descriptor { address, ..buffer }]);
    }),
    ("buffer wraps", |driver, queue| {
        let address = u64::MAX - 3;
        let buffer = driver.writable(8);
        driver.push(queue, 0, &[Descriptor { address, ..buffer }]);
    }),
    ("buffer of 4 GiB", |driver, queue| {
        let buffer = driver.writable(8);
        let len = u32::MAX;
        driver.push(queue, 0, &[Descriptor { len, ..buffer }]);
    }),
    ("readable after writable", |driver, queue| {
        let chain = [driver.writable(8), driver.readable(&[0; 8])];
        driver.push(queue, 0, &chain);
    }),
    ("indirect table of 15 bytes", |driver, queue| {
        let mut table = driver.readable(&[0; 15]);
        table.flags = Descriptor::INDIRECT;
        driver.push(queue, 0, &[table]);
    }),
    ("indirect within indirect", |driver, queue| {
        let inner = driver.readable(&[0; 16]);
        let inner = Descriptor {
            flags: Descriptor::INDIRECT,
            ..inner
        };
        let mut outer = driver.readable(&inner.to_bytes());
        outer.flags = Descriptor::INDIRECT;
        driver.push(queue, 0, &[outer]);
    }),
];

/// Rings that cannot be: the device does not start, and can be reset.
pub fn impossible_queues_need_a_reset(make: Make<'_>) {
    let mut driver = Driver::new(make());
    let breaks: [fn(&mut super::Ring); 7] = [
        |ring| ring.size = 0,
        |ring| ring.size = 3,
        |ring| ring.size = 0x8001,
        |ring| ring.descriptors += 8,
        |ring| ring.available += 1,
        |ring| ring.used = Driver::HOLE - 4,
        |ring| ring.descriptors = !15,
    ];
    for queue in 0..driver.model().queue_sizes.len() {
        for break_ring in breaks {
            assert!(driver.negotiate(features::VERSION_1));
            driver.set_queues();
            let mut ring = driver.rings[queue].clone();
            break_ring(&mut ring);
            driver.set_queue(queue, &ring);
            driver.add_status(config::VIRTIO_CONFIG_S_DRIVER_OK);
            assert!(driver.needs_reset());
            assert!(driver.transport.failure().is_some());
        }
        driver.reset();
    }
    let mut driver = Driver::new(make());
    assert_alive(&mut driver);
}

/// V17: any width at any offset, the same bytes whichever way they are read; writes do no harm.
pub fn config_space_answers_any_access(make: Make<'_>) {
    let mut driver = Driver::running(make());
    let base = u64::from(offsets::VIRTIO_MMIO_CONFIG);
    let read = |offset: u64, width: usize| {
        let mut data = vec![0x55; width];
        driver.transport.read(base + offset, &mut data);
        data
    };
    let bytes: Vec<u8> = (0..0xf00).flat_map(|offset| read(offset, 1)).collect();
    let len = usize::try_from(driver.model().config_len).unwrap();
    assert!(bytes[len..].iter().all(|byte| *byte == 0));
    for width in [2, 4, 8] {
        for offset in 0..0xf00 - width {
            let expected = &bytes[offset..offset + width];
            let offset = u64::try_from(offset).unwrap();
            assert_eq!(read(offset, width), expected, "{width} bytes at {offset}");
        }
    }
    for width in [1, 2, 4, 8] {
        for offset in 0..0xf00 {
            driver.transport.write(base + offset, &vec![0xff; width]);
        }
    }
    driver.transport.read(u64::MAX, &mut [0; 8]);
    driver.transport.write(u64::MAX, &[0; 8]);
    assert_alive(&mut driver);
}

/// V17: below the configuration space only aligned 32-bit accesses mean anything.
pub fn registers_ignore_other_widths_and_offsets(make: Make<'_>) {
    let mut driver = Driver::running(make());
    let before = driver.queue_states();
    let widths = [1_usize, 2, 4, 8];
    for offset in 0..u64::from(offsets::VIRTIO_MMIO_CONFIG) {
        for width in widths {
            if width == 4 && offset % 4 == 0 {
                continue;
            }
            let mut data = vec![0x55; width];
            driver.transport.read(offset, &mut data);
            assert!(data.iter().all(|byte| *byte == 0), "{width} at {offset}");
            driver.transport.write(offset, &data);
        }
    }
    assert_eq!(driver.queue_states(), before);
    assert_eq!(driver.status(), RUNNING);
    assert_alive(&mut driver);
}

/// A notification of a queue that does not run, or does not exist, is nothing.
pub fn doorbells_before_driver_ok_do_nothing(make: Make<'_>) {
    let mut driver = Driver::new(make());
    for queue in [0, 1, 0xffff, 0x1_0000, usize::try_from(u32::MAX).unwrap()] {
        driver.kick(queue);
    }
    assert_eq!(driver.status(), 0);
    assert!(!driver.line.take());
    assert_alive(&mut driver);
}

/// V09: a request without any bytes is answered or left alone; the ring itself is sound.
pub fn zero_length_buffers_are_no_error(make: Make<'_>) {
    let mut driver = Driver::running(make());
    for queue in 0..driver.rings.len() {
        for (index, flags) in [(0, 0), (1, Descriptor::WRITE)] {
            // Without bytes its address is never used.
            let buffer = Descriptor {
                address: u64::MAX,
                flags,
                ..Descriptor::default()
            };
            driver.push(queue, index, &[buffer]);
            driver.kick(queue);
        }
    }
    driver.settle();
    assert_eq!(driver.status(), RUNNING, "{:?}", driver.transport.failure());
    assert_alive(&mut driver);
}

/// V17: resets while the device works.
pub fn resets_during_work_do_no_harm(make: Make<'_>) {
    let mut driver = Driver::new(make());
    let (chain_out, chain_in) = (driver.readable(&[0; 64]), driver.writable(64));
    let rings = driver.alloc(0);
    for round in 0..50 {
        // The RAM of the last round is used again.
        driver.rewind(rings);
        driver.init(u64::MAX);
        for queue in 0..driver.rings.len() {
            driver.push(queue, 0, &[chain_out, chain_in]);
            driver.kick(queue);
        }
        if round % 2 == 0 {
            driver.reset();
            assert_eq!(driver.status(), 0);
        }
    }
    assert_alive(&mut driver);
}
