//! The agent protocol from the guest to the host: what the host's decoder makes of any stream.
#![no_main]

use cofferdam_fuzz::{Input, agent};
use libfuzzer_sys::fuzz_target;
use sandbox_guest::protocol::Event;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let piece = usize::from(input.u8());
    if piece & 1 == 0 {
        agent::check::<Event>(piece, &agent::frames(&mut input));
    } else {
        agent::check::<Event>(piece, input.rest());
    }
});
