//! A mock virtio driver and the tests that every virtio device passes.
//!
//! [`Driver`] is a guest without a processor: it lays rings out in RAM, talks to a device over the
//! real MMIO registers, and can break every rule of the ring. [`device_contract_tests!`] gives a
//! device the tests of [`contract`]. For tests only: a mistake of the test itself panics.
//!
//! [`device_contract_tests!`]: crate::device_contract_tests

#![expect(
    clippy::unwrap_used,
    reason = "a test that misuses the kit, or a device that hangs, must fail"
)]

pub mod contract;
mod driver;
mod ring;

pub use driver::{Driver, Response};
pub use ring::{Descriptor, Ring, Used};

/// Gives a device the contract tests, in a module `contract`.
///
/// The argument is a closure that makes a new device, for instance `|| Rng::new(OsEntropy)`.
#[macro_export]
macro_rules! device_contract_tests {
    ($make:expr) => {
        mod contract {
            #[allow(
                unused_imports,
                clippy::allow_attributes,
                reason = "the closure may name anything"
            )]
            use super::*;

            fn make() -> Box<dyn $crate::virtio::VirtioDevice> {
                Box::new(($make)())
            }

            $crate::device_contract_tests!(@tests
                discovery_registers_answer_the_model
                version_1_is_required_and_unknown_features_refused
                status_bits_come_in_order
                reset_works_in_every_state
                queue_registers_are_frozen_while_active
                queues_restart_elsewhere_after_a_reset
                pause_keeps_every_queue_and_resume_goes_on
                malformed_chains_need_a_reset_and_no_more
                impossible_queues_need_a_reset
                config_space_answers_any_access
                registers_ignore_other_widths_and_offsets
                doorbells_before_driver_ok_do_nothing
                zero_length_buffers_are_no_error
                resets_during_work_do_no_harm
            );
        }
    };
    (@tests $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::testkit::contract::$name(&make);
            }
        )*
    };
}
