//! DHCP (RFC 2131) for one client, which always gets the same address.

use std::net::Ipv4Addr;

use smoltcp::wire::{DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, Ipv4Cidr};

use super::Outbox;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;
/// The address is the guest's for as long as it runs; a client asks again after half of it.
const LEASE_SECONDS: u32 = 24 * 60 * 60;
const OPTION_DNS: u8 = 6;
const OPTION_MTU: u8 = 26;

/// Answers a client's message, if it has an answer.
pub(crate) fn answer(message: &[u8], outbox: &mut Outbox<'_>) {
    let Ok(packet) = DhcpPacket::new_checked(message) else {
        return;
    };
    let Ok(request) = DhcpRepr::parse(&packet) else {
        return;
    };
    let network = outbox.network;
    if request.client_hardware_address != network.guest_hardware {
        return;
    }
    let Some(answer) = kind_of_answer(&request, network.guest, network.gateway) else {
        return;
    };
    let (dns, mtu) = (network.gateway.octets(), network.mtu.get().to_be_bytes());
    let options = [
        DhcpOption {
            kind: OPTION_DNS,
            data: &dns,
        },
        DhcpOption {
            kind: OPTION_MTU,
            data: &mtu,
        },
    ];
    let is_granted = answer != DhcpMessageType::Nak;
    let reply = DhcpRepr {
        message_type: answer,
        transaction_id: request.transaction_id,
        secs: 0,
        client_hardware_address: network.guest_hardware,
        client_ip: Ipv4Addr::UNSPECIFIED,
        your_ip: if is_granted {
            network.guest
        } else {
            Ipv4Addr::UNSPECIFIED
        },
        server_ip: network.gateway,
        router: is_granted.then_some(network.gateway),
        subnet_mask: is_granted.then(|| Ipv4Cidr::new(network.guest, network.prefix_len).netmask()),
        relay_agent_ip: Ipv4Addr::UNSPECIFIED,
        broadcast: request.broadcast,
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(network.gateway),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: is_granted.then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: if is_granted { &options } else { &[] },
    };
    let mut bytes = vec![0; reply.buffer_len()];
    if reply
        .emit(&mut DhcpPacket::new_unchecked(&mut *bytes))
        .is_ok()
    {
        // To all: the client may have no address to be reached by yet, and nobody else is there to be bothered.
        outbox.udp(SERVER_PORT, Ipv4Addr::BROADCAST, CLIENT_PORT, &bytes);
    }
}

/// RFC 2131, section 4.3.
fn kind_of_answer(
    request: &DhcpRepr<'_>,
    guest: Ipv4Addr,
    gateway: Ipv4Addr,
) -> Option<DhcpMessageType> {
    match request.message_type {
        DhcpMessageType::Discover => Some(DhcpMessageType::Offer),
        DhcpMessageType::Request
            if request
                .server_identifier
                .is_some_and(|server| server != gateway) =>
        {
            None
        }
        DhcpMessageType::Request => {
            let wanted = request.requested_ip.unwrap_or(request.client_ip);
            Some(if wanted == guest {
                DhcpMessageType::Ack
            } else {
                DhcpMessageType::Nak
            })
        }
        DhcpMessageType::Inform => Some(DhcpMessageType::Ack),
        _ => None,
    }
}
