//! iceoryx2: publish and subscribe in shared memory, both ends polling. The fastest way there is for a number to go to
//! another process and back.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;

use crate::peer::{self, Failure, Figure, budget, check, error, median_of};
use crate::side::Side;

const BATCH: u64 = 1000;
/// Ends the other process's polling.
const ENOUGH: u64 = u64::MAX;
const PATIENCE: Duration = Duration::from_secs(10);

struct Ends {
    publisher: Publisher<ipc::Service, u64, ()>,
    subscriber: Subscriber<ipc::Service, u64, ()>,
    _node: Node<ipc::Service>,
}

/// The side of iceoryx2. `there-and-back BUDGET`: a `u64`.
pub(crate) fn serve(directory: &FilePath, prefix: &str) -> Result<(), Failure> {
    let ends = Ends::open(directory, prefix, "there", "back")?;
    let mut other = Side::peer(&["iceoryx-echo", directory.to_str().unwrap_or_default(), prefix])?;
    // Its first answer says that its ports are there.
    other.ask("ready")?;
    peer::serve(|words| match *words {
        ["there-and-back", time] => ends.there_and_back(&mut other, budget(time)?),
        ["rest"] => Ok(0.0),
        _ => error("no such work"),
    })
}

/// The other process: polls while it is asked to.
pub(crate) fn echo(directory: &FilePath, prefix: &str) -> Result<(), Failure> {
    let ends = Ends::open(directory, prefix, "back", "there")?;
    peer::serve(|words| {
        if words == ["echo"] {
            loop {
                let number = ends.receive()?;
                ends.send(number)?;
                if number == ENOUGH {
                    break;
                }
            }
        }
        Ok(0.0)
    })
}

impl Ends {
    fn open(directory: &FilePath, prefix: &str, out: &str, back: &str) -> Result<Self, Failure> {
        set_log_level(LogLevel::Error);
        let mut config = Config::default();
        // Its files do not lie beside those of other programs.
        let root = directory.join("iceoryx").to_string_lossy().into_owned();
        let text = |error: &dyn std::fmt::Debug| Failure::Error(format!("iceoryx2: {error:?}"));
        let root = iceoryx2::prelude::Path::new(root.as_bytes()).map_err(|error| text(&error))?;
        config.global.set_root_path(&root);
        config.global.prefix = FileName::new(prefix.as_bytes()).map_err(|error| text(&error))?;
        let node =
            NodeBuilder::new().config(&config).create::<ipc::Service>().map_err(|error| text(&error))?;
        let service = |name: &str| {
            let name = ServiceName::new(name).map_err(|error| text(&error))?;
            node.service_builder(&name)
                .publish_subscribe::<u64>()
                .open_or_create()
                .map_err(|error| text(&error))
        };
        let publisher = service(out)?.publisher_builder().create().map_err(|error| text(&error))?;
        let subscriber = service(back)?.subscriber_builder().create().map_err(|error| text(&error))?;
        Ok(Self { publisher, subscriber, _node: node })
    }

    fn send(&self, number: u64) -> Result<(), Failure> {
        self.publisher.send_copy(number).map_err(|error| Failure::Error(format!("iceoryx2: {error:?}")))?;
        Ok(())
    }

    /// Polls until something is there.
    fn receive(&self) -> Result<u64, Failure> {
        let mut polls = 0_u64;
        let start = Instant::now();
        loop {
            match self.subscriber.receive() {
                Ok(Some(sample)) => return Ok(*sample),
                Ok(None) => {}
                Err(error) => return Err(Failure::Error(format!("iceoryx2: {error:?}"))),
            }
            polls += 1;
            if polls.is_multiple_of(1 << 20) && start.elapsed() > PATIENCE {
                return error("iceoryx2: nothing comes back");
            }
            std::hint::spin_loop();
        }
    }

    fn there_and_back(&self, other: &mut Side, budget: Duration) -> Figure {
        other.send("echo")?;
        let mut next = 0;
        let mut round = || {
            let start = Instant::now();
            for _ in 0..BATCH {
                next += 1;
                self.send(next)?;
                check(self.receive()? == next, "iceoryx2 gives back another number")?;
            }
            Ok(start.elapsed().as_secs_f64() / BATCH as f64)
        };
        round()?;
        let figure = median_of(budget, round);
        self.send(ENOUGH)?;
        self.receive()?;
        other.answer()?;
        figure
    }
}
