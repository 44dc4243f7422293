//! Published ports: connections from the host to what listens in the guest.
//!
//! They are the host user's, who chose the port: no policy is asked. The guest can answer on them, and begin none.

use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::egress::GuestNetwork;
use crate::relay::{Meter, relay, reset};

/// How long it is waited when the host has no room for a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections off `listener` and carries each to `port` of the guest's. Never resolves; call it in a `LocalSet`. A connection that the guest does not
/// take is reset.
pub async fn publish(listener: TcpListener, network: GuestNetwork, port: u16) {
    loop {
        match listener.accept().await {
            Ok((host, _)) => {
                tokio::task::spawn_local(carry(host, network.clone(), port));
            }
            // The one that came has gone, or there are no descriptors left now.
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn carry(mut host: TcpStream, network: GuestNetwork, port: u16) {
    // Without it the connection is as good, if slower.
    let _ = host.set_nodelay(true);
    let done = async {
        let guest = network.connect(port).await?;
        relay(&guest, &mut host, &Meter::default()).await
    };
    if done.await.is_err() {
        reset(&host);
    }
}

#[cfg(all(test, unix))]
mod tests;
