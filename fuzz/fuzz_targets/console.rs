//! Console output, input and control messages through the device's queues.
#![no_main]

use cofferdam_fuzz::{Input, driver::Driver, rings};
use devices::console::{Console, ConsolePort, LogRing};
use libfuzzer_sys::fuzz_target;

/// Two ports and the control queues: a queue in and one out of each.
const QUEUES: u64 = 6;
const CONTROL_OUT: u64 = 3;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let log = LogRing::new(64);
    let ports = vec![
        ConsolePort::console(Box::new(log.clone())),
        ConsolePort::named("agent", Box::new(log.clone())),
    ];
    let console = Console::new(ports).expect("two good ports");
    let keys: Vec<_> = (0..2).filter_map(|port| console.input(port)).collect();
    let mut driver = Driver::new(Box::new(console));
    driver.start(2, QUEUES);
    for _ in 0..32 {
        if input.is_empty() {
            break;
        }
        let queue = u64::from(input.u8()) % QUEUES;
        match input.below(8) {
            0 => drop(keys[input.below(2)].write(input.blob())),
            1 => {
                driver.offer(queue, &mut input);
                rings::put(&driver.ram, rings::DATA, input.blob());
            }
            2 if input.below(4) == 0 => driver.start(u64::from(input.u32()), QUEUES),
            3 | 4 => driver.request(CONTROL_OUT, &[(&message(&mut input), 0)]),
            _ => driver.request(queue, &[(input.blob(), u32::from(input.u8()))]),
        }
        driver.turn();
    }
    assert!(log.snapshot().len() <= 64);
});

/// Port, event and value of a control message.
fn message(input: &mut Input<'_>) -> Vec<u8> {
    let port = if input.u8() < 0xf0 {
        u32::from(input.u8() % 3)
    } else {
        input.u32()
    };
    let (event, value) = (u16::from(input.u8() % 10), u16::from(input.u8() & 1));
    [
        &port.to_le_bytes()[..],
        &event.to_le_bytes(),
        &value.to_le_bytes(),
    ]
    .concat()
}
