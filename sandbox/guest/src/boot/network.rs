//! The network as the host lays it out: an address, and a gateway that is the resolver too.

use std::fs;
use std::net::Ipv4Addr;

use rustix::io::Errno;

use crate::protocol::Network;
use crate::sys::Interface;

/// What the kernel calls the first network device.
const INTERFACE: &str = "eth0";
const RESOLVER: &str = "/etc/resolv.conf";

/// Sets the interface up, and the resolver's settings.
pub(super) fn set_up(network: &Network) -> Result<(), Errno> {
    let gateway = Ipv4Addr::from(network.gateway);
    let interface = Interface::named(INTERFACE)?;
    interface.set_mtu(network.mtu)?;
    interface.set_address(network.address.into(), network.prefix_len)?;
    interface.up()?;
    interface.route_by(gateway)?;
    // A link in its place may lead to what nobody makes here.
    let _ = fs::remove_file(RESOLVER);
    let settings = format!("nameserver {gateway}\n");
    fs::write(RESOLVER, settings).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}
