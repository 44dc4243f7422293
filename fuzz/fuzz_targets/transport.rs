//! Register accesses of any kind in any order; the device behind them checks that it is treated as promised.
#![no_main]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cofferdam_fuzz::{Input, rings};
use devices::bus::BusDevice as _;
use devices::virtio::{
    IrqLine, LiveQueue, MmioTransport, Model, QueueState, RunEnv, StartError, VirtioDevice, Worker,
};
use hv_core::Event;
use libfuzzer_sys::fuzz_target;

const QUEUES: [u16; 3] = [64, 16, 1];
const FEATURES: u64 = 0b1011;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let ram = rings::ram();
    let line = IrqLine::Event(Event::new().expect("a descriptor"));
    let transport =
        MmioTransport::new(Box::new(Probe::default()), &ram, line).expect("descriptors");
    while !input.is_empty() {
        match input.below(16) {
            0 => transport.pause(),
            // A ring that the driver placed wrongly is the driver's fault and told to it.
            1 => drop(transport.resume()),
            2 => reset(&transport),
            3..=5 => read(&transport, &mut input),
            6 | 7 => write_any(&transport, &mut input),
            _ => write_register(&transport, &mut input),
        }
    }
});

fn reset(transport: &MmioTransport) {
    transport.write(0x70, &[0; 4]);
    let mut status = [0xff; 4];
    transport.read(0x70, &mut status);
    assert_eq!(status, [0; 4], "a reset is complete when it was written");
}

fn read(transport: &MmioTransport, input: &mut Input<'_>) {
    let mut data = vec![0xaa; input.choose(&[1, 2, 4, 8])];
    let offset = u64::from(input.u16()) & 0xfff;
    transport.read(offset, &mut data);
    if offset == 0 && data.len() == 4 {
        assert_eq!(data, b"virt");
    }
}

fn write_any(transport: &MmioTransport, input: &mut Input<'_>) {
    let width = input.choose(&[1, 2, 4, 8]);
    let offset = u64::from(input.u16()) & 0xfff;
    transport.write(offset, &input.u64().to_le_bytes()[..width]);
}

/// A whole register: most values that matter are small.
fn write_register(transport: &MmioTransport, input: &mut Input<'_>) {
    let register = u64::from(input.u8() & 0x3f) * 4;
    let value = if input.u8() & 1 == 0 {
        u32::from(input.u8())
    } else {
        input.u32()
    };
    transport.write(register, &value.to_le_bytes());
}

/// A device that does nothing but hold its transport to the contract.
#[derive(Debug, Default)]
struct Probe {
    running: Arc<AtomicBool>,
}

impl VirtioDevice for Probe {
    fn model(&self) -> Model {
        Model {
            id: 42,
            features: FEATURES,
            queue_sizes: QUEUES.to_vec(),
            config_len: 8,
        }
    }

    fn read_config(&self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn start(&mut self, env: RunEnv) -> Result<Box<dyn Worker>, StartError> {
        assert_eq!(env.queues.len(), QUEUES.len());
        assert_eq!(
            env.features & 0x00ff_ffff & !FEATURES,
            0,
            "only what was offered"
        );
        for (index, seat) in env
            .queues
            .iter()
            .enumerate()
            .filter(|(_, seat)| seat.state.ready)
        {
            assert!(seat.state.size <= QUEUES[index]);
            LiveQueue::new(&env.memory, seat.state, &env.interrupt)
                .map_err(|source| StartError::Queue { index, source })?;
        }
        assert!(
            !self.running.swap(true, Ordering::Relaxed),
            "it runs already"
        );
        let states = env.queues.iter().map(|seat| seat.state).collect();
        Ok(Box::new(Running {
            states,
            running: Arc::clone(&self.running),
        }))
    }

    fn reset(&mut self) {
        assert!(!self.running.load(Ordering::Relaxed), "reset while it runs");
    }
}

struct Running {
    states: Vec<QueueState>,
    running: Arc<AtomicBool>,
}

impl Worker for Running {
    fn stop(self: Box<Self>) -> Vec<QueueState> {
        assert!(self.running.swap(false, Ordering::Relaxed));
        self.states
    }
}
