//! The contract's suite on the fake: it shows that the suite and the fake agree, everywhere.

#![cfg(all(feature = "fake", feature = "conformance"))]

use hv_core::HvError;
use hv_core::fake::{FakeHypervisor, FakeOptions};

mod whole {
    //! All facets.
    use super::{FakeHypervisor, HvError};

    hv_core::conformance_tests!(|| Ok::<_, HvError>(FakeHypervisor::default()));
}

mod bare {
    //! As a host with large pages that leaves out all that the contract lets it.
    use super::{FakeHypervisor, FakeOptions, HvError};

    hv_core::conformance_tests!(|| Ok::<_, HvError>(FakeHypervisor::new(FakeOptions {
        granule: 16384,
        doorbells: false,
        event_irqs: false,
        dirty_log: false,
    })));
}
