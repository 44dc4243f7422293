//! Features, configuration space and headers (sections 5.1.3, 5.1.4, 5.1.6).

/// The driver gives frames whose checksum is not finished.
pub const F_CSUM: u64 = 1 << 0;
/// The driver takes such frames.
pub const F_GUEST_CSUM: u64 = 1 << 1;
/// The configuration names the wire's longest packet.
pub const F_MTU: u64 = 1 << 3;
/// The configuration names the device's address.
pub const F_MAC: u64 = 1 << 5;
/// The driver takes segments of TCP over IPv4 that are longer than that.
pub const F_GUEST_TSO4: u64 = 1 << 7;
/// The driver gives such segments.
pub const F_HOST_TSO4: u64 = 1 << 11;
/// The driver takes frames in several buffers.
pub const F_MRG_RXBUF: u64 = 1 << 15;
/// The configuration says whether the wire is there.
pub const F_STATUS: u64 = 1 << 16;

/// Bytes of the configuration space: address, status, pairs of queues, longest packet.
pub const CONFIG_LEN: usize = 12;
/// Bytes of `struct virtio_net_hdr` before its count of buffers.
pub const OFFLOAD_LEN: usize = 10;
/// Bytes of the whole of it. Its count of buffers is there whatever was negotiated (section 5.1.6.1).
pub const HEADER_LEN: usize = 12;

const S_LINK_UP: u16 = 1;

/// The configuration space.
#[must_use]
pub fn config(mac: [u8; 6], mtu: u16, link_up: bool) -> [u8; CONFIG_LEN] {
    let status = if link_up { S_LINK_UP } else { 0 };
    let mut config = [0; CONFIG_LEN];
    let (address, rest) = config.split_at_mut(mac.len());
    address.copy_from_slice(&mac);
    let numbers = [status, 1, mtu].map(u16::to_le_bytes);
    rest.copy_from_slice(numbers.as_flattened());
    config
}

/// The header of a frame to the driver.
#[must_use]
pub fn header(offload: [u8; OFFLOAD_LEN], buffers: u16) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    let (start, count) = header.split_at_mut(OFFLOAD_LEN);
    start.copy_from_slice(&offload);
    count.copy_from_slice(&buffers.to_le_bytes());
    header
}
