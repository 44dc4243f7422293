//! Where synthetic addresses are from.

use std::net::Ipv4Addr;

use crate::address;

/// Fewest bits of a pool's prefix.
const SHORTEST: u8 = 8;
/// Most: two addresses remain between the first and the last.
const LONGEST: u8 = 30;

/// The addresses of an IPv4 prefix, but for its first and its last, which some programs take for the network's own and for broadcasts.
///
/// The default is 198.18.0.0/15, which is for benchmarks of devices (RFC 2544), so that no network worth reaching has it. The gateway and
/// the guest belong elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    first: Ipv4Addr,
    length: u8,
}

/// Why a prefix is no pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There would be no address, or far more than names.
    #[error("a pool's prefix has 8 to 30 bits")]
    Length,
    /// It is not the first address of the prefix: probably a mistake in one of the two.
    #[error("the pool's address has bits beyond its prefix")]
    Bits,
    /// A synthetic address would hide a server, or be dialled if it got where addresses are dialled.
    #[error("the pool has public addresses, or addresses that no program would connect to")]
    Unsuitable,
}

impl Pool {
    /// The prefix of `length` bits that begins with `first`.
    ///
    /// # Errors
    ///
    /// It cannot be one, or its addresses are not ones that mean nothing outside of a private network.
    pub fn new(first: Ipv4Addr, length: u8) -> Result<Self, PoolError> {
        if !(SHORTEST..=LONGEST).contains(&length) {
            return Err(PoolError::Length);
        }
        let pool = Self { first, length };
        if first.to_bits() & pool.host_bits() != 0 {
            return Err(PoolError::Bits);
        }
        if !is_suitable(first) || !is_suitable(pool.last()) {
            return Err(PoolError::Unsuitable);
        }
        Ok(pool)
    }

    /// Whether `address` is of the pool's prefix, its first and its last among them.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        (self.first..=self.last()).contains(&address)
    }

    /// How many addresses there are to give.
    pub(super) fn size(self) -> usize {
        usize::try_from(self.host_bits() - 1).unwrap_or(usize::MAX)
    }

    pub(super) fn address(self, index: usize) -> Option<Ipv4Addr> {
        let offset = u32::try_from(index).ok()?.checked_add(1)?;
        (offset < self.host_bits()).then(|| Ipv4Addr::from_bits(self.first.to_bits() | offset))
    }

    pub(super) fn index(self, address: Ipv4Addr) -> Option<usize> {
        if !self.contains(address) || address == self.last() {
            return None;
        }
        let offset = address.to_bits() & self.host_bits();
        usize::try_from(offset.checked_sub(1)?).ok()
    }

    fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first.to_bits() | self.host_bits())
    }

    /// The bits that differ within the pool.
    fn host_bits(self) -> u32 {
        u32::MAX >> self.length
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            first: Ipv4Addr::new(198, 18, 0, 0),
            length: 15,
        }
    }
}

/// Both ends of a prefix of at least 8 bits are, only if all of it is.
fn is_suitable(address: Ipv4Addr) -> bool {
    use address::AddressRefusal::{Benchmarking, CarrierShared, Private};
    let refusal = address::check(address.into()).err();
    matches!(refusal, Some(Benchmarking | CarrierShared | Private))
}

#[cfg(test)]
mod tests;
