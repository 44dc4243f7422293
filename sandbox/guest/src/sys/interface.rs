//! Network interfaces (`netdevice(7)`).

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::last_errno;

/// An interface, to be set up.
pub(crate) struct Interface {
    name: &'static str,
    socket: OwnedFd,
}

impl Interface {
    /// The interface of that name, which is no longer than 15 bytes.
    pub(crate) fn named(name: &'static str) -> Result<Self, Errno> {
        let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
        let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self { name, socket })
    }

    /// Brings it up. The kernel gives `lo` its addresses.
    pub(crate) fn up(&self) -> Result<(), Errno> {
        let flags = libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or_default();
        self.set(
            libc::SIOCSIFFLAGS,
            libc::__c_anonymous_ifr_ifru { ifru_flags: flags },
        )
    }

    /// Gives it an address in a network of its own.
    pub(crate) fn set_address(&self, address: Ipv4Addr, prefix_len: u8) -> Result<(), Errno> {
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0);
        let value = |address| libc::__c_anonymous_ifr_ifru {
            ifru_addr: socket_address(address),
        };
        self.set(libc::SIOCSIFADDR, value(address))?;
        self.set(libc::SIOCSIFNETMASK, value(Ipv4Addr::from_bits(mask)))
    }

    /// Sets the length of the longest packet that it sends.
    pub(crate) fn set_mtu(&self, mtu: u16) -> Result<(), Errno> {
        self.set(
            libc::SIOCSIFMTU,
            libc::__c_anonymous_ifr_ifru {
                ifru_mtu: mtu.into(),
            },
        )
    }

    /// Sends everything that is for nowhere else by way of `gateway`.
    pub(crate) fn route_by(&self, gateway: Ipv4Addr) -> Result<(), Errno> {
        // SAFETY: `rtentry` is plain data for which all zero bytes are a valid value.
        let mut route: libc::rtentry = unsafe { std::mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        // SAFETY: the request reads one `rtentry`, whose name of a device is null, which is none.
        let done =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCADDRT, &raw const route) };
        if done == 0 { Ok(()) } else { Err(last_errno()) }
    }

    fn set(&self, request: libc::Ioctl, value: libc::__c_anonymous_ifr_ifru) -> Result<(), Errno> {
        let mut argument = libc::ifreq {
            ifr_name: [0; libc::IFNAMSIZ],
            ifr_ifru: value,
        };
        for (to, from) in argument.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = from.cast_signed();
        }
        // SAFETY: each of the requests above reads one `ifreq`, with `value` as the member that it is about.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), request, &raw const argument) } {
            0 => Ok(()),
            _ => Err(last_errno()),
        }
    }
}

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    // Behind the port (`struct sockaddr_in`).
    for (to, from) in data.iter_mut().skip(2).zip(address.octets()) {
        *to = from.cast_signed();
    }
    let family = libc::sa_family_t::try_from(libc::AF_INET).unwrap_or_default();
    libc::sockaddr {
        sa_family: family,
        sa_data: data,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_lies_behind_its_port() {
        let address = socket_address(Ipv4Addr::new(100, 64, 0, 255));
        assert_eq!(address.sa_data[..7], [0, 0, 100, 64, 0, -1, 0]);
    }
}
