//! The parser of FUSE requests on any bytes, and on requests that are nearly right.
#![no_main]

use cofferdam_fuzz::{
    Input,
    fuse::{self, Known},
};
use fsshare::abi;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input::new(bytes);
    let request = if input.u8() & 1 == 0 {
        fuse::request(&mut input, &Known::default(), 7)
    } else {
        input.rest().to_vec()
    };
    match abi::parse(&request) {
        Ok(parsed) => {
            let _ = (
                parsed.operation.changes(),
                format!("{:?}", parsed.operation),
            );
        }
        Err(error) => {
            if let Some((_, errno)) = error.answer() {
                assert!(errno.number() > 0);
            }
        }
    }
});
