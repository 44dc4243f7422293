//! The walk through a split ring whose every byte is hostile, and which changes while it is walked.
#![no_main]

use cofferdam_fuzz::{Input, rings};
use devices::virtio::{Interrupt, IrqLine, LiveQueue, QueueError, QueueState};
use hv_core::{Event, GuestRam};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let ram = rings::ram();
    let state = registers(&mut input);
    rings::offer(&ram, &state, &mut input);
    let data = input.blob();
    rings::put(&ram, rings::DATA, data);
    let interrupt = Interrupt::new(IrqLine::Event(Event::new().expect("a descriptor")));
    if let Ok(mut queue) = LiveQueue::new(&ram, state, &interrupt) {
        // An error ends the device, as it must end this.
        let _ = work(&mut queue, &ram, &mut input);
    }
});

fn registers(input: &mut Input<'_>) -> QueueState {
    let bits = input.u8();
    let mut state = rings::place(0);
    if bits & 0xc0 == 0xc0 {
        state = QueueState {
            descriptors: input.u64(),
            available: input.u64(),
            used: input.u64(),
            ..state
        };
        state.size = input.u16();
    }
    if bits & 1 != 0 {
        state.next_avail = input.u16();
        state.next_used = input.u16();
    }
    QueueState {
        event_idx: bits & 2 != 0,
        indirect: bits & 4 != 0,
        ..state
    }
}

fn work(queue: &mut LiveQueue, ram: &GuestRam, input: &mut Input<'_>) -> Result<(), QueueError> {
    let size = queue.state().size;
    let mut taken = 0;
    while let Some(chain) = queue.pop()? {
        let (mut reader, mut writer) = (chain.reader(), chain.writer());
        let (all, room) = (reader.remaining(), writer.available());
        let mut buffer = vec![0; all.min(usize::from(input.u8()))];
        assert_eq!(reader.read(&mut buffer), buffer.len());
        assert_eq!(reader.remaining(), all - buffer.len());
        let answer = input.blob();
        assert_eq!(writer.write(answer), answer.len().min(room));
        let (left, at) = (reader.remaining(), input.below(64));
        match reader.split_at(at) {
            Ok((head, tail)) => assert_eq!((head.remaining(), tail.remaining()), (at, left - at)),
            Err(_) => assert!(at > left),
        }
        match input.below(8) {
            0 => drop(chain),
            // It is there again at once, so only a few times.
            1 if !input.is_empty() => {
                chain.put_back();
                continue;
            }
            2 => chain.finish_and_signal(input.u32())?,
            _ => chain.finish(u32::try_from(answer.len()).unwrap_or(0))?,
        }
        taken += 1;
        assert!(taken <= size, "a turn has an end");
        if input.below(4) == 1 {
            rings::put(ram, u64::from(input.u16()), input.blob());
        }
    }
    queue.signal()
}
