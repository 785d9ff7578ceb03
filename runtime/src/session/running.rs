//! A running session: its parts, and the order in which they start and end.
//!
//! All parts of a session depend on one [lifeline](crate::process::lifeline): the store and the workers end when the
//! driver tells them to, or when the driver has ended for any reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use mobula_client::OwnerId;
use mobula_client::internal::explained;

use super::directory::Directory;
use super::options::{LOG_BYTES_MAX, SessionOptions};
use super::shared::joined::Joined;
use super::store::Store;
use super::{shared, surroundings};
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::head::{EXIT_PATIENCE, Head, HeadOptions, MemoryOptions, StartDetached, WorkerOptions};
use crate::launch::Launch;
use crate::mail::link::Link;
use crate::mail::spin::SPIN_DEFAULT;
use crate::process;
use crate::process::lifeline::Lifeline;
use crate::process::role::{HeadRole, StoreRole};
use crate::resources::Resources;
use crate::runtime::{ProcessSettings, Runtime, current};

/// The namespace of a session that names none.
const NAMESPACE_DEFAULT: &str = "default";

/// A session, with all parts of it that belong to this process. Dropping it ends them.
pub(super) struct Running {
    home: Option<Home>,
    pub(super) socket: PathBuf,
    head: Option<Head>,
    pub(super) runtime: Arc<Runtime>,
    poller: Option<JoinHandle<()>>,
    lifeline: Option<Arc<Lifeline>>,
}

/// Where the session's store is.
enum Home {
    /// In a directory of this session's own, which is removed after the store has ended.
    Own { store: Option<Store>, _directory: Directory },
    /// In a session that other drivers share.
    Shared(Joined),
}

/// The parts of the session that the head needs.
struct Whole {
    socket: PathBuf,
    resources: Resources,
    gpus: Vec<String>,
    memory: MemoryOptions,
}

impl Home {
    /// Starts a store, or joins a session that has one.
    fn of(options: &SessionOptions, store_launch: Launch, lifeline: &Lifeline) -> Result<(Self, Whole)> {
        if let Some(address) = &options.address {
            let joined = Joined::join(address, store_launch)?;
            let socket = joined.directory.join(shared::STORE_SOCKET);
            let (resources, gpus) = (joined.resources.clone(), joined.gpus.clone());
            let memory = joined.memory.clone();
            return Ok((Self::Shared(joined), Whole { socket, resources, gpus, memory }));
        }
        let directory = Directory::make(options.session_dir.as_deref())
            .map_err(|error| Error::Start(explained(&error)))?;
        let socket = directory.path.join(shared::STORE_SOCKET);
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(surroundings::default_capacity_bytes);
        let resources = options.resources(capacity_bytes)?;
        let (gpus, memory) = (options.gpu_names()?, options.memory());
        let role = StoreRole {
            socket: socket.clone().into(),
            capacity_bytes,
            clients_max: surroundings::clients_max(options.processes_max(options.workers_for(&resources))),
            spill_directory: surroundings::spill_directory(options)?,
            spill_bytes_max: options.spill_bytes_max,
            lifeline: lifeline.watched(),
            link: directory.link.clone().map(Into::into),
        };
        let store = Store::start(store_launch, role)?;
        Ok((
            Self::Own { store: Some(store), _directory: directory },
            Whole { socket, resources, gpus, memory },
        ))
    }
}

impl Home {
    /// Waits until the store of a session of this process's own has ended; the lifeline has told it to.
    fn end_store(&mut self) {
        if let Self::Own { store, .. } = self {
            drop(store.take());
        }
    }
}

impl Running {
    pub(super) fn start(options: SessionOptions) -> Result<Self> {
        surroundings::prepare()?;
        let spin = options.spin.unwrap_or(SPIN_DEFAULT);
        let lifeline = Arc::new(Lifeline::new().map_err(|error| Error::Start(explained(&error)))?);
        let launch = surroundings::absolute_launch(options.launch.clone())?;
        let store_launch = surroundings::absolute_launch(options.store_launch.clone())?;
        let (mut home, whole) = Home::of(&options, store_launch, &lifeline)?;
        let Whole { socket, resources, gpus, memory } = whole;
        let workers = options.workers_for(&resources);
        let namespace = options.namespace.clone().unwrap_or_else(|| NAMESPACE_DEFAULT.to_owned());
        let (mut head, mut runtime, mut poller) = (None, None, None);
        let starts_detached = match &home {
            Home::Shared(joined) => Some(start_detached(&options, joined, &launch, &namespace, &lifeline)?),
            Home::Own { .. } => None,
        };
        let begin = || -> Result<Arc<Runtime>> {
            let client = process::store::connect("driver", &socket)?;
            let worker = WorkerOptions {
                socket: socket.clone(),
                launch,
                forward_output: options.forward_output.unwrap_or(true),
                output: options.output.clone(),
                log_dir: options.log_dir.clone(),
                log_bytes_max: options.log_bytes_max.unwrap_or(LOG_BYTES_MAX),
                spin,
                resources: resources.clone(),
                gpus,
                namespace: namespace.clone(),
                lifeline: lifeline.clone(),
            };
            let head = head.insert(Head::start(HeadOptions {
                workers,
                processes_max: options.processes_max(workers),
                build_id: options.build_id,
                worker,
                memory,
                is_shared: matches!(home, Home::Shared(_)),
                starts_detached,
                detached: None,
            })?);
            if let Home::Shared(joined) = &mut home {
                joined.watch(head.connector())?;
            }
            let directory = socket.parent().map(Path::to_owned);
            let place = ProcessSettings {
                resources,
                environment: Environment::USUAL,
                gpus: Vec::new(),
                namespace,
                directory,
            };
            let runtime = runtime.insert(Runtime::new(client, None, spin, place));
            poller = Some(current::start(runtime)?);
            let link = Link::new(runtime.client.connect_to(head.id())?, false);
            runtime.set_head(Arc::new(link));
            Ok(runtime.clone())
        };
        match begin() {
            Ok(runtime) => {
                let (home, lifeline) = (Some(home), Some(lifeline));
                Ok(Self { home, socket, head, runtime, poller, lifeline })
            }
            Err(error) => {
                current::forget();
                if let Some(runtime) = runtime {
                    runtime.stop();
                }
                if let Some(poller) = poller {
                    let _ = poller.join();
                }
                // Before the head, which waits for its workers, and they for that.
                lifeline.cut();
                home.end_store();
                drop(head);
                Err(error)
            }
        }
    }
}

/// The function that starts the head of the driver's detached actors.
fn start_detached(
    options: &SessionOptions,
    joined: &Joined,
    launch: &Launch,
    namespace: &str,
    lifeline: &Lifeline,
) -> Result<StartDetached> {
    let role = HeadRole {
        directory: joined.directory.clone().into(),
        // The head that starts it sets the id.
        driver: OwnerId::from_bits(0),
        lifeline: lifeline.watched(),
        launch: launch.clone(),
        store_launch: surroundings::absolute_launch(options.store_launch.clone())?,
        processes_max: options.processes_max(options.workers_for(&joined.resources)),
        build_id: options.build_id,
        forward_output: options.forward_output.unwrap_or(true),
        // That process may have another directory.
        log_dir: options.log_dir.as_deref().and_then(|kept| std::path::absolute(kept).ok()).map(Into::into),
        log_bytes_max: options.log_bytes_max.unwrap_or(LOG_BYTES_MAX),
        spin: options.spin.unwrap_or(SPIN_DEFAULT),
        namespace: namespace.to_owned(),
    };
    Ok(StartDetached::new(move |driver| shared::detached::start(HeadRole { driver, ..role.clone() })))
}

impl Running {
    /// Ends the session. The actors have `timeout` for their running calls and their destructors; then they are killed.
    /// Returns the number of actors that were killed. Does nothing the second time.
    pub(super) fn end(&mut self, timeout: Duration) -> usize {
        // In a forked child, all of this belongs to the parent.
        if self.runtime.client.is_forked_child() {
            std::mem::forget((self.head.take(), self.poller.take(), self.lifeline.take(), self.home.take()));
            return 0;
        }
        let Some(head) = self.head.take() else { return 0 };
        current::forget();
        self.runtime.on_session_over();
        self.runtime.stop();
        if let Some(poller) = self.poller.take() {
            let _ = poller.join();
        }
        // The actors end while everything is there that their destructors may use.
        let killed = head.end_actors(timeout);
        // Store and workers end by themselves then. The head waits for the workers.
        if let Some(lifeline) = &self.lifeline {
            lifeline.cut();
        }
        // The store ends before the head: a restarted store would need what belongs to the head.
        if let Some(home) = &mut self.home {
            home.end_store();
        }
        drop(head);
        drop(self.home.take());
        killed
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end(EXIT_PATIENCE);
    }
}
