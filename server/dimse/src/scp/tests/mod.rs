//! Raw clients against a provider with a service in memory.

mod associations;
mod client;
mod limits;
mod loopback;
mod memory;
mod messages;
mod stopping;

use std::net::SocketAddr;
use std::net::TcpStream as Socket;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use dicom_ul::pdu::Pdu;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{ScpOptions, serve};
use crate::limits::WireLimits;
use client::{Client, request};
use memory::{Memory, Told};

fn options() -> ScpOptions {
    ScpOptions {
        called_ae_title: Some("TEZ".to_owned()),
        associations_max: 32,
        associations_per_address_max: 16,
        wire: WireLimits {
            pdu_bytes_max: 256 << 10,
            command_bytes_max: 16 << 10,
            establish_time_max: Duration::from_secs(10),
            idle_time_max: Duration::from_mins(2),
            data_set_bytes_per_second_min: 256,
            stop_time_max: Duration::from_secs(10),
        },
    }
}

/// A provider on a free port.
struct Provider {
    runtime: Runtime,
    address: SocketAddr,
    told: Receiver<Told>,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Provider {
    fn start() -> Self {
        Self::start_with(options())
    }

    fn start_with(options: ScpOptions) -> Self {
        Self::start_for(options, |_| {})
    }

    /// With a service that `change` makes another.
    fn start_for(options: ScpOptions, change: impl FnOnce(&mut Memory)) -> Self {
        let runtime = Runtime::new().unwrap();
        let (teller, told) = mpsc::channel();
        let mut service = Memory::new(teller);
        change(&mut service);
        let (stop, shutdown) = watch::channel(false);
        let (address, served) = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let serving = serve(listener, options, Arc::new(service), shutdown);
            (address, tokio::spawn(serving))
        });
        Self {
            runtime,
            address,
            told,
            stop,
            served,
        }
    }

    fn connect(&self) -> Client {
        Client::new(Socket::connect(self.address).unwrap())
    }

    /// As another host.
    fn connect_from(&self, host: &str) -> Client {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        let own: SocketAddr = format!("{host}:0").parse().unwrap();
        socket.bind(&own.into()).unwrap();
        socket.connect(&self.address.into()).unwrap();
        Client::new(Socket::from(socket))
    }

    fn associate(&self) -> Client {
        associated(self.connect())
    }

    fn associate_from(&self, host: &str) -> Client {
        associated(self.connect_from(host))
    }

    /// What the service is told next.
    fn next(&self) -> Told {
        let told = self.told.recv_timeout(Duration::from_secs(20));
        told.expect("the service is told something")
    }

    /// The data sets that were stored until now.
    fn stored(&self) -> Vec<Vec<u8>> {
        let told = self.told.try_iter();
        told.filter_map(|told| match told {
            Told::Stored { data_set, .. } => Some(data_set),
            _ => None,
        })
        .collect()
    }
}

fn associated(mut client: Client) -> Client {
    client.send(&request("CT1", "TEZ"));
    assert!(matches!(client.receive(), Some(Pdu::AssociationAC(_))));
    client
}
