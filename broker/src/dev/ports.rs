//! Free ports, where none were given: the brokers register them before they listen.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpSocket;

use crate::config::Addresses;

/// Addresses with ports, which nobody else is given as long as this lives.
pub(super) struct Chosen {
    /// By broker.
    pub(super) of_brokers: Vec<Addresses>,
    /// Bound and not listened on: whoever reuses addresses can listen there, and the system gives them to nobody.
    _held: Vec<TcpSocket>,
}

/// Chooses a port for each that is 0.
pub(super) fn choose(mut of_brokers: Vec<Addresses>) -> io::Result<Chosen> {
    let mut held = Vec::new();
    for Addresses { listen, admin, internal } in &mut of_brokers {
        for address in [listen, admin, internal] {
            if address.port() == 0 {
                let socket = bind(*address)?;
                *address = socket.local_addr()?;
                held.push(socket);
            }
        }
    }
    Ok(Chosen { of_brokers, _held: held })
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn a_chosen_port_can_be_listened_on_again_and_again_and_others_stay() {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let fixed: SocketAddr = "127.0.0.1:9".parse().unwrap();
        let chosen = choose(vec![Addresses { listen: any, admin: any, internal: fixed }]).unwrap();
        let Addresses { listen, admin, internal } = chosen.of_brokers[0];
        assert!(listen.port() != 0 && admin.port() != 0 && listen != admin && internal == fixed);
        for _ in 0..2 {
            let listener = TcpListener::bind(listen).await.unwrap();
            let (_client, accepted) = (TcpStream::connect(listen).await.unwrap(), listener.accept().await);
            accepted.unwrap();
        }
    }
}
