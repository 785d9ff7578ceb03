//! `mobula.plasma`: objects of a store by ids of 20 bytes, between processes that have nothing else in common.
//!
//! The id is the object's name in the store. The name keeps the object alive, and is given when the object is sealed: a
//! client that waits for the name waits for the object. While an object is being made, another name, [`creating`], has
//! a promise: no other client makes an object of the same id meanwhile, and if the process dies, the name is gone.
//!
//! An object is the data, and behind it the metadata. The format tag says how many of the bytes are metadata (see
//! [`Sizes`]), so what the store lists has all sizes. An object without metadata is plain bytes to every client of the
//! store. Values are objects of the formats that calls use.

use std::borrow::Cow;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mobula_client::{
    Client, ClientError, ConnectOptions, Event, Events, Layout, NameChange, NameInfo, Object, ObjectInfo,
    ObjectWriter, Promise, Refusal,
};
use mobula_runtime::{Encoded, format};
use nix::sys::signal::{SigSet, Signal};
use parking_lot::Mutex;
use pyo3::exceptions::{PyBufferError, PyOSError, PyTypeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use rustc_hash::FxHashMap;

use crate::interpreter::Attribute;
use crate::reference::duration;
use crate::value;
use crate::value::memory::Memory;

/// How long an operation waits for room in a full store. Objects that are not in use are evicted in that time.
const ROOM_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of an id.
const ID_BYTES: usize = 20;
/// Objects that a store of `run_store` may have.
const NAMES_MAX: usize = 1 << 20;

static EXISTS: Attribute = Attribute::new("mobula.plasma", "PlasmaObjectExists");
static NOT_FOUND: Attribute = Attribute::new("mobula.plasma", "PlasmaObjectNotFound");
static FULL: Attribute = Attribute::new("mobula.plasma", "PlasmaStoreFull");

type Id = [u8; ID_BYTES];
/// An id, the bytes of data and of metadata, the clients that use the object, and whether it is sealed.
type Row = (Cow<'static, [u8]>, usize, usize, u32, bool);
/// An id, and the bytes of data and of metadata.
type Notification = (Cow<'static, [u8]>, i64, i64);

/// The name that an object has while it is being made.
fn creating(id: &Id) -> Vec<u8> {
    [CREATING, id].concat()
}

const CREATING: &[u8] = b"creating:";

/// The id of a name, if it is one.
fn id_of(name: &[u8]) -> Option<Id> {
    name.try_into().ok()
}

/// The sizes of an object's parts.
#[derive(Clone, Copy)]
struct Sizes {
    data: usize,
    metadata: usize,
}

impl Sizes {
    /// In the format tag: the other bits are the number of bytes of metadata.
    const HAS_METADATA: u32 = 1 << 31;

    fn new(bytes: usize, format: u32) -> Self {
        // Another process wrote the tag.
        let metadata =
            if format & Self::HAS_METADATA == 0 { 0 } else { (format ^ Self::HAS_METADATA) as usize };
        let metadata = metadata.min(bytes);
        Self { data: bytes - metadata, metadata }
    }

    fn of_info(info: &ObjectInfo) -> Self {
        Self::new(usize::try_from(info.bytes).unwrap_or(usize::MAX), info.format)
    }

    fn of(object: &Object) -> Self {
        Self::new(object.len(), object.format())
    }

    fn format(self) -> PyResult<u32> {
        match u32::try_from(self.metadata) {
            Ok(0) => Ok(format::RAW),
            Ok(metadata) if metadata < Self::HAS_METADATA => Ok(metadata | Self::HAS_METADATA),
            _ => Err(PyValueError::new_err(format!(
                "metadata of {} bytes: at most {} bytes are possible",
                self.metadata,
                Self::HAS_METADATA - 1
            ))),
        }
    }
}

/// A connection to a store.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PlasmaConnection {
    client: Client,
    /// `None` until the program subscribes.
    events: Mutex<Option<Events>>,
}

#[pymethods]
impl PlasmaConnection {
    #[new]
    fn new(py: Python<'_>, socket: PathBuf) -> PyResult<Self> {
        let connect = || ConnectOptions::new().lease_timeout(ROOM_TIMEOUT).connect(&socket);
        let client = py.detach(connect).map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Self { client, events: Mutex::new(None) })
    }

    /// An object to be written.
    fn create(&self, py: Python<'_>, id: Id, data_bytes: usize, metadata: &[u8]) -> PyResult<PlasmaDraft> {
        let sizes = Sizes { data: data_bytes, metadata: metadata.len() };
        let layout = Layout::new((sizes.data + sizes.metadata) as u64).format(sizes.format()?);
        let made = py.detach(|| {
            let promise = self.reserve(&id)?;
            match self.client.create(layout) {
                Ok(writer) => Ok((promise, writer)),
                Err(error) => {
                    self.unreserve(&id);
                    Err(error)
                }
            }
        });
        let (promise, mut writer) = made.map_err(|error| raised(py, &id, error))?;
        writer[sizes.data..].copy_from_slice(metadata);
        Ok(PlasmaDraft { id, data_bytes, content: Mutex::new(Content::Writing { writer, promise }) })
    }

    /// Makes an object visible. Nothing writes it any more, except a program through views that it made before.
    fn seal(&self, py: Python<'_>, draft: &PlasmaDraft) -> PyResult<()> {
        let content = std::mem::replace(&mut *draft.content.lock(), Content::Sealing);
        let Content::Writing { writer, promise } = content else {
            *draft.content.lock() = content;
            return Err(PyValueError::new_err("the object is sealed already"));
        };
        let object = writer.seal();
        *draft.content.lock() = Content::Sealed(object.clone());
        let published = py.detach(|| {
            let published = self.client.publish(draft.id, object.id());
            self.unreserve(&draft.id);
            drop(promise);
            published
        });
        published.map_err(|error| raised(py, &draft.id, error))
    }

    /// Copies a value into the store. `is_new`: the id was made for it, and no other client has the same.
    fn put(&self, id: Id, value: &Bound<'_, PyAny>, is_new: bool) -> PyResult<()> {
        let py = value.py();
        let encoded = value::encode(value)?;
        if !encoded.references().is_empty() {
            let text = "a plasma object cannot contain references or actor handles: they are of a session's own store";
            return Err(PyTypeError::new_err(text));
        }
        let put = || {
            let promise = if is_new { None } else { Some(self.reserve(&id)?) };
            let layout = Layout::new(encoded.payload_bytes() as u64).format(encoded.format());
            let published = self.client.create(layout).and_then(|mut writer| {
                encoded.write_into(&mut writer);
                self.client.publish(id, writer.seal().id())
            });
            if promise.is_some() {
                self.unreserve(&id);
            }
            published
        };
        // The buffers of the value take the lock by themselves when they are given back, which is not in here.
        py.detach(put).map_err(|error| raised(py, &id, error))
    }

    /// The object of this id, which is waited for. `None`: it was not there in time.
    fn get(&self, py: Python<'_>, id: Id, seconds: f64) -> PyResult<Option<PlasmaObject>> {
        let timeout = duration(seconds)?;
        match py.detach(|| self.client.get_named(id, timeout)) {
            Ok(object) => Ok(Some(PlasmaObject { object })),
            // It can be evicted between the look at its name and its pin.
            Err(
                ClientError::Refused(Refusal::NoSuchName {})
                | ClientError::NoSuchObject { .. }
                | ClientError::Deleted { .. },
            ) => Ok(None),
            Err(error) => Err(raised(py, &id, error)),
        }
    }

    /// Whether an object of this id is there. It counts as used.
    fn contains(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        let found = py.detach(|| self.client.lookup(id)).map_err(|error| raised(py, &id, error))?;
        Ok(found.is_some())
    }

    /// Takes the id away from an object, whose memory is freed when no process uses it. `false`: there is none.
    fn delete(&self, py: Python<'_>, id: Id) -> PyResult<bool> {
        match py.detach(|| self.client.unpublish(id)) {
            Ok(()) => Ok(true),
            Err(ClientError::Refused(Refusal::NoSuchName {})) => Ok(false),
            Err(error) => Err(raised(py, &id, error)),
        }
    }

    /// Deletes objects that are not in use, the least recently used first. Returns their bytes.
    fn evict(&self, py: Python<'_>, bytes: u64) -> PyResult<u64> {
        py.detach(|| self.client.evict(bytes)).map_err(of_store)
    }

    /// All objects, those that are being made included.
    fn list(&self, py: Python<'_>) -> PyResult<Vec<Row>> {
        let (names, objects) =
            py.detach(|| Ok((self.client.names()?, self.client.list()?))).map_err(of_store)?;
        let objects: FxHashMap<_, _> = objects.into_iter().map(|info| (info.object, info)).collect();
        let row = |name: NameInfo| {
            let (id, is_sealed) = match name.name.strip_prefix(CREATING) {
                Some(id) => (id_of(id)?, false),
                None => (id_of(&name.name)?, true),
            };
            let info = objects.get(&name.object)?;
            let sizes = Sizes::of_info(info);
            Some((Cow::Owned(id.to_vec()), sizes.data, sizes.metadata, info.holders, is_sealed))
        };
        Ok(names.into_iter().filter_map(row).collect())
    }

    /// From now on each object that is sealed, deleted or evicted makes a notification.
    fn subscribe(&self, py: Python<'_>) -> PyResult<()> {
        let mut events = self.events.lock();
        if events.is_none() {
            *events = Some(self.client.events());
            py.detach(|| self.client.watch_names()).map_err(of_store)?;
        }
        Ok(())
    }

    /// The next notification, which is waited for: an id, and the bytes of its data and metadata, or -1 twice where the
    /// object is gone. `None`: there was none in time.
    fn next_notification(&self, py: Python<'_>, seconds: f64) -> PyResult<Option<Notification>> {
        let deadline = Instant::now() + duration(seconds)?;
        py.detach(|| {
            let events = self.events.lock();
            let Some(events) = &*events else {
                return Err(PyValueError::new_err("there are no notifications: call subscribe() first"));
            };
            while let Some(event) = events.next_within(deadline.saturating_duration_since(Instant::now())) {
                match event {
                    Event::NameChanged(NameChange { name, object, .. }) => {
                        // Other names are of no object, or of one that is being made.
                        let Some(id) = id_of(&name) else { continue };
                        let (data, metadata) = object.map_or((-1, -1), |info| {
                            let sizes = Sizes::of_info(&info);
                            (sizes.data as i64, sizes.metadata as i64)
                        });
                        return Ok(Some((Cow::Owned(id.to_vec()), data, metadata)));
                    }
                    Event::StoreLost => return Err(of_store(ClientError::StoreLost)),
                    _ => {}
                }
            }
            Ok(None)
        })
    }

    /// Bytes that all objects may take together.
    fn capacity(&self) -> u64 {
        self.client.capacity_bytes()
    }
}

impl PlasmaConnection {
    /// Makes sure that no other client makes an object of this id, until the promise is dropped.
    fn reserve(&self, id: &Id) -> Result<Promise, ClientError> {
        let promise = self.client.promise()?;
        self.client.publish(creating(id), promise.handle().id())?;
        match self.client.lookup(id) {
            Ok(None) => Ok(promise),
            Ok(Some(object)) => {
                self.unreserve(id);
                Err(Refusal::NameTaken { object }.into())
            }
            Err(error) => Err(error),
        }
    }

    fn unreserve(&self, id: &Id) {
        // It fails only where the store is lost, and all its names with it.
        let _ = self.client.unpublish(creating(id));
    }
}

/// An object that is being made, and the memory that it is written in.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PlasmaDraft {
    id: Id,
    data_bytes: usize,
    content: Mutex<Content>,
}

enum Content {
    Writing {
        writer: ObjectWriter,
        promise: Promise,
    },
    /// Only while it is being sealed.
    Sealing,
    /// Kept: views of the memory are of this object now.
    Sealed(Object),
}

#[pymethods]
impl PlasmaDraft {
    /// # Safety
    /// Called by the interpreter, with a view that it owns.
    // SAFETY: the signature is the buffer protocol's; the body says why it keeps to it.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let this = slf.get();
        let (pointer, is_read_only) = match &mut *this.content.lock() {
            Content::Writing { writer, .. } => (writer.as_mut_ptr(), 0),
            Content::Sealed(object) => (object.as_ptr().cast_mut(), 1),
            Content::Sealing => return Err(PyBufferError::new_err("another thread is sealing the object")),
        };
        // SAFETY: the interpreter passes a view that may be filled. The bytes stay where they are as long as the writer
        // or, behind it, the object in `slf` lives, to which the view gets a reference of its own: an object is sealed
        // where it was written. A view that may write was made before the object was sealed. The memory behind it stays
        // this client's own, writable and of this one object, so a program that writes later spoils its own object, as
        // `PlasmaClient.create` says, and nothing else. No reference to bytes that may be written is kept here.
        let filled = unsafe {
            let length = this.data_bytes as isize;
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), pointer.cast(), length, is_read_only, flags)
        };
        if filled < 0 { Err(PyErr::fetch(slf.py())) } else { Ok(()) }
    }

    fn __len__(&self) -> usize {
        self.data_bytes
    }
}

/// A sealed object.
#[pyclass(frozen, module = "mobula._mobula")]
pub(crate) struct PlasmaObject {
    object: Object,
}

#[pymethods]
impl PlasmaObject {
    /// The data, where it lies.
    fn data(&self) -> Option<Memory> {
        Memory::new(self.object.clone(), 0..Sizes::of(&self.object).data)
    }

    /// The metadata, where it lies.
    fn metadata(&self) -> Option<Memory> {
        Memory::new(self.object.clone(), Sizes::of(&self.object).data..self.object.len())
    }

    /// The value that was put.
    fn value<'py>(&self, py: Python<'py>, connection: &PlasmaConnection) -> PyResult<Bound<'py, PyAny>> {
        if Sizes::of(&self.object).metadata > 0 || self.object.format() == format::RAW {
            let text = "the object is plain bytes, and no value that was put: read it with get_buffers";
            return Err(PyValueError::new_err(text));
        }
        value::of_object(py, &connection.client, self.object.clone())
    }
}

/// The exception for an error of an operation on one object.
fn raised(py: Python<'_>, id: &Id, error: ClientError) -> PyErr {
    let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
    let (class, text) = match error {
        ClientError::Refused(Refusal::NameTaken { .. }) => {
            (&EXISTS, format!("object {id} exists already in the plasma store, or is being created"))
        }
        ClientError::NoSuchObject { .. } | ClientError::Deleted { .. } | ClientError::Lost { .. } => {
            (&NOT_FOUND, format!("object {id} does not exist in the plasma store"))
        }
        ClientError::Refused(
            refusal @ (Refusal::StoreFull { .. }
            | Refusal::TooLarge { .. }
            | Refusal::NoMemory { .. }
            | Refusal::QuotaReached { .. }
            | Refusal::LimitReached { .. }
            | Refusal::SpillFailed { .. }),
        ) => (&FULL, format!("object {id}: {refusal}")),
        error => return of_store(error),
    };
    match class.get(py).and_then(|class| class.call1((text,))) {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// The exception for an error of the store.
fn of_store(error: ClientError) -> PyErr {
    PyOSError::new_err(error.to_string())
}

/// Runs a store until the process gets SIGTERM or SIGINT. Says `ready` on standard output when it can be connected to.
#[pyfunction]
pub(crate) fn run_store(py: Python<'_>, socket: PathBuf, capacity_bytes: u64) -> PyResult<()> {
    let failed = |error: &dyn std::fmt::Display| PyOSError::new_err(error.to_string());
    // Before there is a second thread, so that only the one below takes these signals.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(|error| failed(&error))?;
    mobula_store::prepare_process().map_err(|error| failed(&error))?;
    let config = mobula_store::Config::new(socket, capacity_bytes).names_max(NAMES_MAX);
    let server = mobula_store::Server::bind(config).map_err(|error| failed(&error))?;
    let stopper = server.stopper();
    std::thread::spawn(move || {
        let _ = signals.wait();
        stopper.stop();
    });
    println!("ready");
    py.detach(|| server.run()).map_err(|error| failed(&error))
}
