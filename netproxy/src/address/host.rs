//! The host's own addresses and networks, which no range tells.

use std::net::IpAddr;

use super::{AddressRefusal, check};

/// Addresses that begin with the same bits, in one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Subnet {
    address: IpAddr,
    length: u8,
}

/// There is no such subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a prefix of {length} bits is longer than the address")]
pub struct SubnetError {
    length: u8,
}

impl Subnet {
    /// The addresses whose first `length` bits are those of `address`; its other bits may be anything, as with an interface's address.
    ///
    /// # Errors
    ///
    /// There are fewer bits.
    pub fn new(address: IpAddr, length: u8) -> Result<Self, SubnetError> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        if length > bits {
            return Err(SubnetError { length });
        }
        Ok(Self { address, length })
    }

    /// Whether `address` is one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let length = u32::from(self.length);
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= length
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                (own.to_bits() ^ other.to_bits()).leading_zeros() >= length
            }
            _ => false,
        }
    }
}

impl From<IpAddr> for Subnet {
    fn from(address: IpAddr) -> Self {
        let length = if address.is_ipv4() { 32 } else { 128 };
        Self { address, length }
    }
}

/// The host's own addresses and the networks it is in (LAN, VPN, container bridges), public ones among them.
///
/// Nothing here looks at the host: whoever does gives a new set when an interface changes. The default is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostAddresses {
    subnets: Vec<Subnet>,
}

impl HostAddresses {
    /// These and no others.
    pub fn new(subnets: impl IntoIterator<Item = Subnet>) -> Self {
        Self {
            subnets: subnets.into_iter().collect(),
        }
    }

    /// From now on these and no others.
    pub fn replace(&mut self, subnets: impl IntoIterator<Item = Subnet>) {
        *self = Self::new(subnets);
    }

    /// Whether `address` is public unicast, as [`check`] says, and none of the host's.
    ///
    /// # Errors
    ///
    /// Which range it is in, or that it is the host's.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressRefusal> {
        check(address)?;
        if self.subnets.iter().any(|subnet| subnet.contains(address)) {
            return Err(AddressRefusal::HostOwn);
        }
        Ok(())
    }
}
