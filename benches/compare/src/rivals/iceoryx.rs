//! iceoryx2: publish and subscribe in shared memory, both ends polling. The fastest way there is for a number to go to
//! another process and back.

use std::path::Path as FilePath;
use std::time::{Duration, Instant};

use iceoryx2::port::publisher::Publisher;
use iceoryx2::port::subscriber::Subscriber;
use iceoryx2::prelude::*;
use iceoryx2::service::port_factory::publish_subscribe::PortFactory;

use crate::jobs::PLACES;
use crate::peer::{self, Failure, Figure, budget, check, error, median_of};
use crate::side::Side;

const BATCH: u64 = 1000;
/// Ends the other process's polling.
const ENOUGH: u64 = u64::MAX;
const PATIENCE: Duration = Duration::from_secs(10);

struct Ends {
    publisher: Publisher<ipc::Service, u64, ()>,
    subscriber: Subscriber<ipc::Service, u64, ()>,
    node: Node<ipc::Service>,
}

/// The side of iceoryx2. `there-and-back BUDGET`: a `u64`; `queue ITEMS BUDGET`: a `u64` each, from the other process.
pub(crate) fn serve(directory: &FilePath, prefix: &str) -> Result<(), Failure> {
    let ends = Ends::open(directory, prefix, "there", "back")?;
    let mut other = Side::peer(&["iceoryx-echo", directory.to_str().unwrap_or_default(), prefix])?;
    // Its first answer says that its ports are there.
    other.ask("ready")?;
    let mut items_here = None;
    peer::serve(|words| match *words {
        ["there-and-back", time] => ends.there_and_back(&mut other, budget(time)?),
        ["queue", items, time] => {
            let subscriber = match &items_here {
                Some(subscriber) => subscriber,
                None => items_here.insert(ends.items()?.subscriber_builder().create().map_err(text)?),
            };
            queue(subscriber, &mut other, items.parse()?, budget(time)?)
        }
        ["rest"] => Ok(0.0),
        _ => error("no such work"),
    })
}

/// The other process: polls while it is asked to.
pub(crate) fn echo(directory: &FilePath, prefix: &str) -> Result<(), Failure> {
    let ends = Ends::open(directory, prefix, "back", "there")?;
    let mut items_out = None;
    peer::serve(|words| {
        if let ["produce", items] = words {
            let publisher = match &items_out {
                Some(publisher) => publisher,
                None => {
                    let items = ends.items()?;
                    // A full subscriber takes nothing, and `send_to_room` tries again.
                    let builder =
                        items.publisher_builder().backpressure_strategy(BackpressureStrategy::DiscardData);
                    items_out.insert(builder.create().map_err(text)?)
                }
            };
            (0..items.parse::<u64>()?).try_for_each(|item| send_to_room(publisher, item))?;
        }
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
        let root = iceoryx2::prelude::Path::new(root.as_bytes()).map_err(text)?;
        config.global.set_root_path(&root);
        config.global.prefix = FileName::new(prefix.as_bytes()).map_err(text)?;
        let node = NodeBuilder::new().config(&config).create::<ipc::Service>().map_err(text)?;
        let service = |name: &str| {
            let name = ServiceName::new(name).map_err(text)?;
            node.service_builder(&name).publish_subscribe::<u64>().open_or_create().map_err(text)
        };
        let publisher = service(out)?.publisher_builder().create().map_err(text)?;
        let subscriber = service(back)?.subscriber_builder().create().map_err(text)?;
        Ok(Self { publisher, subscriber, node })
    }

    /// The service of the queue: its subscriber has so many places, and loses nothing.
    fn items(&self) -> Result<PortFactory<ipc::Service, u64, ()>, Failure> {
        let name = ServiceName::new("items").map_err(text)?;
        let builder = self.node.service_builder(&name).publish_subscribe::<u64>();
        builder.enable_safe_overflow(false).subscriber_max_buffer_size(PLACES).open_or_create().map_err(text)
    }

    fn send(&self, number: u64) -> Result<(), Failure> {
        self.publisher.send_copy(number).map_err(text)?;
        Ok(())
    }

    fn receive(&self) -> Result<u64, Failure> {
        receive(&self.subscriber)
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

/// Items a second from the other process to this one.
fn queue(
    subscriber: &Subscriber<ipc::Service, u64, ()>,
    other: &mut Side,
    items: u64,
    budget: Duration,
) -> Figure {
    median_of(budget, || {
        let start = Instant::now();
        other.send(&format!("produce {items}"))?;
        for item in 0..items {
            check(receive(subscriber)? == item, "iceoryx2 gives the items in order")?;
        }
        let taken = start.elapsed().as_secs_f64();
        other.answer()?;
        Ok(items as f64 / taken)
    })
}

/// Polls until something is there.
fn receive(subscriber: &Subscriber<ipc::Service, u64, ()>) -> Result<u64, Failure> {
    poll("nothing comes", || Ok(subscriber.receive().map_err(text)?.map(|sample| *sample)))
}

/// Polls until the subscriber has room.
fn send_to_room(publisher: &Publisher<ipc::Service, u64, ()>, item: u64) -> Result<(), Failure> {
    poll("nothing is taken", || Ok((publisher.send_copy(item).map_err(text)? > 0).then_some(())))
}

fn poll<T>(otherwise: &str, mut look: impl FnMut() -> Result<Option<T>, Failure>) -> Result<T, Failure> {
    let mut polls = 0_u64;
    let start = Instant::now();
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        polls += 1;
        if polls.is_multiple_of(1 << 20) && start.elapsed() > PATIENCE {
            return error(format!("iceoryx2: {otherwise}"));
        }
        std::hint::spin_loop();
    }
}

fn text(error: impl std::fmt::Debug) -> Failure {
    Failure::Error(format!("iceoryx2: {error:?}"))
}
