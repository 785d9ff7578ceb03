//! A store in this process, and connections to it that can send any bytes.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Reply, Request, Totals, is_notice};
use mobula_protocol::socket::Socket;
use mobula_store::{Config, Server};

/// How long anything that must happen may take.
const SOON: Duration = Duration::from_secs(60);

/// Where the store listens, which runs until this process ends.
pub fn socket() -> &'static Path {
    static SOCKET: OnceLock<PathBuf> = OnceLock::new();
    SOCKET.get_or_init(|| {
        // It is there only where cargo builds into it.
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
        std::fs::create_dir_all(&directory).expect("a directory");
        let socket = directory.join(format!("{}.sock", std::process::id()));
        // Orphans that no client pins go at once.
        let config = Config::new(&socket, 32 << 20)
            .orphan_grace(Duration::ZERO)
            .clients_max(8)
            .table_entries_initial(64);
        let server = Server::bind(config).expect("a store");
        std::thread::spawn(move || server.run().expect("the store ends with its process"));
        socket
    })
}

/// A client without a client's library, which can send any bytes.
pub struct Peer {
    socket: Socket,
}

impl Peer {
    /// Connects; says nothing yet.
    pub fn connect() -> Self {
        Self { socket: Socket::connect(socket()).expect("the store accepts") }
    }

    /// The answer to a request, with its descriptors.
    pub fn call(&self, request: &Request) -> (Reply, Vec<OwnedFd>) {
        self.socket.send(&request.encode(1), &[]).expect("the store reads");
        loop {
            let packet = self.socket.receive().expect("the store answers").expect("before it hangs up");
            if !is_notice(&packet.bytes) {
                let (_, reply) = Reply::decode(&packet.bytes).expect("a reply");
                return (reply, packet.descriptors);
            }
        }
    }
    /// The store's own totals.
    pub fn totals(&self) -> Totals {
        match self.call(&Request::Stats {}).0 {
            Reply::Stats { totals } => totals,
            reply => panic!("{reply:?}"),
        }
    }

    /// Waits until the store says of itself what is expected.
    pub fn settle(&self, what: &str, is_settled: impl Fn(&Totals) -> bool) {
        let began = Instant::now();
        loop {
            let totals = self.totals();
            if is_settled(&totals) {
                return;
            }
            assert!(began.elapsed() < SOON, "never came true: {what}; {totals:?}");
            std::thread::yield_now();
        }
    }
}

/// A client that only looks, as long as the store runs; it has nothing.
pub fn observer() -> &'static Peer {
    static OBSERVER: OnceLock<Peer> = OnceLock::new();
    OBSERVER.get_or_init(|| {
        let peer = Peer::connect();
        peer.call(&Request::Hello { label: "observer".into(), serial: 1 });
        peer
    })
}
