//! The agent protocol from the host to the guest: what the guest's decoder makes of any stream.
#![no_main]

use cofferdam_fuzz::{Input, agent};
use libfuzzer_sys::fuzz_target;
use sandbox_guest::protocol::Request;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let piece = usize::from(input.u8());
    if piece & 1 == 0 {
        agent::check::<Request>(piece, &agent::frames(&mut input));
    } else {
        agent::check::<Request>(piece, input.rest());
    }
});
