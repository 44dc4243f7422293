//! What a driver can do wrong with a ring.

/// A ring that breaks the rules of virtio 1.3 section 2.7; always the guest's fault. The device
/// must stop and ask for a reset: nothing that the ring says can be believed any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The size is no power of two or larger than offered.
    #[error("guest driver: {0} is not a possible queue size")]
    Size(u16),
    /// A part of the ring is not aligned as section 2.7 demands.
    #[error("guest driver: ring part at {0:#x} is not aligned")]
    Alignment(u64),
    /// A part of the ring, a descriptor table or a buffer is not all in RAM.
    #[error("guest driver: {len} bytes at {address:#x} are not all in RAM")]
    Range {
        /// Guest-physical address.
        address: u64,
        /// Bytes.
        len: u64,
    },
    /// The available index moved by more than the queue's size.
    #[error("guest driver: available index {index} is impossible after {next}")]
    AvailableIndex {
        /// What the ring says.
        index: u16,
        /// How far the device is.
        next: u16,
    },
    /// The head of a chain, or the next one of a descriptor, is past the end of its table.
    #[error("guest driver: descriptor {index} of a table of {count}")]
    DescriptorIndex {
        /// The index.
        index: u16,
        /// Descriptors of that table.
        count: u32,
    },
    /// A chain has more descriptors than the queue: it is too long, or a loop.
    #[error("guest driver: descriptor chain is longer than the queue")]
    ChainLength,
    /// The buffers of a chain add up to more than 2^32 bytes.
    #[error("guest driver: descriptor chain of more than 2^32 bytes")]
    ChainBytes,
    /// A buffer for the device to read follows one for it to write.
    #[error("guest driver: readable buffer after a writable one")]
    Direction,
    /// An indirect table without the feature, inside another one, or with a next descriptor.
    #[error("guest driver: indirect descriptor where none is allowed")]
    Indirect,
    /// An indirect table that is empty or no whole number of descriptors.
    #[error("guest driver: indirect descriptor table of {0} bytes")]
    IndirectLength(u32),
}
