//! The loop of an actor with `async` methods: one thread, which polls the futures of all their calls.
//!
//! It is a tokio runtime of one thread. It has one thread, because a call then needs no switch between threads, and
//! arguments and futures need not be `Send`. A long computation belongs into a method that blocks, which has a thread
//! of its own. It is tokio, because nearly all crates use tokio's timers and sockets; the program's features of tokio
//! decide which of them exist.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::thread::JoinHandle;

use mobula_runtime::Failure;
use tokio::runtime::{Builder, EnterGuard, Handle, Runtime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};

use super::concurrent::{Job, Shared};
use super::lanes::Begun;
use super::user_code::{drop_guarded, panicked};
use crate::registry::{BoxedOutcome, Outcome};
use crate::reply;

/// The name of the thread. Those of tokio have names that begin in the same way.
const NAME: &str = "tokio-rt-mobula";

type Begin = (Arc<Shared>, Begun<Job>);

/// See the module's documentation.
pub(crate) struct Loop {
    runtime: Arc<Runtime>,
    calls: UnboundedSender<Begin>,
    thread: JoinHandle<()>,
}

impl Loop {
    pub(crate) fn start() -> Result<Self, Failure> {
        let failed = |error: io::Error| {
            let needed = "a thread and descriptors for the `async` methods of an actor".to_owned();
            Failure::System { needed, errno: error.raw_os_error() }
        };
        let runtime = Arc::new(Builder::new_current_thread().enable_all().build().map_err(failed)?);
        let (calls, begin) = unbounded_channel();
        let on = runtime.clone();
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run(&on, begin))
            .map_err(failed)?;
        Ok(Self { runtime, calls, thread })
    }

    /// While the guard lives, this thread finds the runtime, for timers and sockets.
    pub(crate) fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }

    pub(crate) fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// Begins a call.
    pub(crate) fn begin(&self, shared: &Arc<Shared>, call: Begun<Job>) {
        // The loop ends after this sender alone.
        let _ = self.calls.send((shared.clone(), call));
    }

    /// Drops the futures that are not over.
    pub(crate) fn stop(self) {
        let Self { runtime, calls, thread } = self;
        drop(calls);
        let _ = thread.join();
        // Tasks that user code has spawned are not waited for.
        if let Ok(runtime) = Arc::try_unwrap(runtime).map_err(drop) {
            runtime.shutdown_background();
        }
    }
}

fn run(runtime: &Runtime, mut begin: UnboundedReceiver<Begin>) {
    let calls = LocalSet::new();
    calls.block_on(runtime, async {
        while let Some((shared, call)) = begin.recv().await {
            spawn_local(shared.run_future(call));
        }
        // Calls that have not begun.
        begin.close();
        while let Ok((_, call)) = begin.try_recv() {
            call.job.call.abandon();
        }
    });
    // The destructors of futures are user code.
    drop_guarded(calls);
}

/// Runs user code as a future: a panic becomes an error.
pub(super) async fn guarded<'a>(call: impl FnOnce() -> BoxedOutcome<'a>) -> Outcome {
    let mut call = Some(call);
    let mut running: Option<BoxedOutcome<'a>> = None;
    std::future::poll_fn(|context| {
        let mut polled = Poll::Pending;
        let outcome = reply::answering_panics(|| {
            let poll = catch_unwind(AssertUnwindSafe(|| {
                let running = match (&mut running, call.take()) {
                    (Some(running), _) => running,
                    (none, Some(call)) => none.insert(call()),
                    (None, None) => return Poll::Ready(Ok(())),
                };
                running.as_mut().poll(context)
            }));
            polled = poll.unwrap_or_else(|panic| {
                drop_guarded(running.take());
                Poll::Ready(Err(panicked(panic)))
            });
            match &polled {
                Poll::Ready(Err(failure)) => Err(failure.clone()),
                _ => Ok(()),
            }
        });
        drop(outcome);
        std::mem::replace(&mut polled, Poll::Pending)
    })
    .await
}
