//! A running session: what it consists of, and the order in which that starts and ends.
//!
//! Everything a session has hangs on one [lifeline](crate::process::lifeline): store and workers end when the driver
//! says so, or has ended, however that happened.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use mobula_client::ConnectOptions;
use mobula_client::internal::explained;

use super::directory::Directory;
use super::options::SessionOptions;
use super::store::Store;
use super::surroundings;
use crate::environment::Environment;
use crate::error::{Error, Result};
use crate::head::{Head, HeadOptions, WorkerOptions};
use crate::mail::link::Link;
use crate::mail::spin::SPIN_DEFAULT;
use crate::process::launch::Launch;
use crate::process::lifeline::Lifeline;
use crate::process::role::StoreRole;
use crate::runtime::{Runtime, current};

/// A session and everything that belongs to it. Dropping it ends the session.
pub(super) struct Running {
    directory: Option<Directory>,
    pub(super) socket: PathBuf,
    store: Option<Store>,
    head: Option<Head>,
    pub(super) runtime: Arc<Runtime>,
    poller: Option<JoinHandle<()>>,
    lifeline: Option<Arc<Lifeline>>,
}

impl Running {
    pub(super) fn start(options: SessionOptions) -> Result<Self> {
        surroundings::prepare()?;
        let start = |error: &std::io::Error| Error::Start(explained(error));
        let directory = Directory::make(options.session_dir.as_deref()).map_err(|error| start(&error))?;
        let socket = directory.path.join("store.sock");
        let spin = options.spin.unwrap_or(SPIN_DEFAULT);
        let lifeline = Arc::new(Lifeline::new().map_err(|error| start(&error))?);
        let capacity_bytes = options.capacity_bytes.unwrap_or_else(surroundings::default_capacity_bytes);
        let memory = options.memory();
        let (workers, resources) = (options.workers(), options.resources(capacity_bytes)?);
        let gpus = options.gpu_names()?;
        let spill_directory = options.spill_directory.as_deref().map(surroundings::absolute).transpose()?;
        let spill_directory = spill_directory.or_else(mobula_store::Config::default_spill_directory);
        let absolute = |launch: Launch| -> Result<Launch> {
            // A bare name is looked up in PATH.
            let is_path = launch.program.components().count() > 1;
            let program = if is_path { surroundings::absolute(&launch.program)? } else { launch.program };
            Ok(Launch { program, ..launch })
        };
        let (launch, store_launch) = (absolute(options.launch)?, absolute(options.store_launch)?);
        let processes_max =
            options.max_processes.unwrap_or_else(|| surroundings::default_processes_max(workers));
        let role = StoreRole {
            socket: socket.clone().into(),
            capacity_bytes,
            clients_max: surroundings::clients_max(processes_max),
            spill_directory: spill_directory.filter(|_| options.spill_bytes_max != Some(0)).map(Into::into),
            spill_bytes_max: options.spill_bytes_max,
            lifeline: lifeline.watched(),
            link: directory.link.clone().map(Into::into),
        };
        let store = Store::start(store_launch, role)?;
        let (mut head, mut runtime, mut poller) = (None, None, None);
        let begin = || -> Result<Arc<Runtime>> {
            let client =
                ConnectOptions::new().label(format!("driver {}", std::process::id())).connect(&socket)?;
            let worker = WorkerOptions {
                socket: socket.clone(),
                launch,
                forward_output: options.forward_output.unwrap_or(true),
                spin,
                resources: resources.clone(),
                gpus,
                lifeline: lifeline.clone(),
            };
            let head = head.insert(Head::start(HeadOptions {
                workers,
                processes_max,
                build_id: options.build_id,
                worker,
                memory,
            })?);
            let runtime =
                runtime.insert(Runtime::new(client, None, spin, resources, Environment::USUAL, Vec::new()));
            poller = Some(current::start(runtime)?);
            let link = Link::new(runtime.client.connect_to(head.id())?, false);
            runtime.set_head(Arc::new(link));
            Ok(runtime.clone())
        };
        match begin() {
            Ok(runtime) => {
                let (directory, store, lifeline) = (Some(directory), Some(store), Some(lifeline));
                Ok(Self { directory, socket, store, head, runtime, poller, lifeline })
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
                drop((store, head));
                Err(error)
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // In a forked child, all of this belongs to the parent.
        if self.runtime.client.is_forked_child() {
            std::mem::forget((
                self.head.take(),
                self.poller.take(),
                self.lifeline.take(),
                self.directory.take(),
                self.store.take(),
            ));
            return;
        }
        current::forget();
        self.runtime.on_session_over();
        self.runtime.stop();
        if let Some(poller) = self.poller.take() {
            let _ = poller.join();
        }
        // The actors end while everything is there that their destructors may use.
        if let Some(head) = &self.head {
            head.end_actors();
        }
        // Store and workers end by themselves then. The head waits for the workers.
        if let Some(lifeline) = &self.lifeline {
            lifeline.cut();
        }
        // The store ends before the head: a restarted store would need what belongs to the head.
        drop(self.store.take());
        drop(self.head.take());
        drop(self.directory.take());
    }
}
