//! The outcome of a call, and its form as an object of the store, for other processes.
//!
//! A value has its own format there. A failure is an object of format [`RAISED`](format::RAISED), and a result that is
//! already an object is named by one of format [`FORWARD`](format::FORWARD).

use mobula_client::{Client, ClientError, Handle, Layout, Object, ObjectWriter};

use crate::call::inline::Inline;
use crate::error::Failure;
use crate::{format, wire};

/// The most forwards that are followed from one object to the next. Each stands for a process that passed a result on.
/// A longer chain is treated as a cycle.
const FORWARDS_MAX: u32 = 1024;

/// The outcome of a call, for one of its results.
#[derive(Debug, Clone)]
pub(crate) enum Settled {
    Inline(Inline),
    Stored(Handle),
    /// Boxed, because it is large and rare.
    Failed(Box<Failure>),
}

impl Settled {
    pub(crate) fn failed(failure: impl Into<Failure>) -> Self {
        Self::Failed(Box::new(failure.into()))
    }
}

/// Opens the object of a stored result, following forwards.
///
/// # Errors
/// The failure that the object contains, or the reason why the object cannot be read.
pub fn stored(client: &Client, mut handle: Handle) -> Result<Object, Failure> {
    let first = handle.id();
    for _ in 0..FORWARDS_MAX {
        let object = handle.object()?;
        match object.format() {
            format::RAISED => {
                let mut bytes = vec![0; object.len()];
                mobula_client::internal::copy_once(&mut bytes, &object);
                return Err(wire::read(&bytes).unwrap_or_else(|_| {
                    Failure::Other(format!(
                        "object {} says that it is an error, but cannot be read",
                        object.id()
                    ))
                }));
            }
            format::FORWARD => match object.references()[..] {
                [to] => handle = client.hold(to)?,
                _ => return Ok(object),
            },
            _ => return Ok(object),
        }
    }
    Err(Failure::Other(format!(
        "object {first} forwards to another object, and the chain of forwards is too long"
    )))
}

/// Writes an outcome into an object, which is not yet sealed.
pub(super) fn write(client: &Client, settled: &Settled) -> Result<ObjectWriter, ClientError> {
    let write = |format, bytes: &[u8], references: Vec<Handle>| {
        let mut writer =
            client.create(Layout::new(bytes.len() as u64).format(format).references(references))?;
        writer.copy_from_slice(bytes);
        Ok(writer)
    };
    match settled {
        Settled::Inline(inline) => write(inline.format, &inline.value, inline.references.clone()),
        Settled::Stored(handle) => write(format::FORWARD, &[], vec![handle.clone()]),
        Settled::Failed(failure) => {
            let bytes = wire::to_vec(&**failure);
            write(format::RAISED, &bytes, Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::with_store;

    #[test]
    fn objects_that_stand_for_each_other_are_an_error() {
        with_store(|client| {
            let (one, other) = (client.promise().unwrap(), client.promise().unwrap());
            let (one_handle, other_handle) = (one.handle().clone(), other.handle().clone());
            one.fulfil(write(client, &Settled::Stored(other_handle.clone())).unwrap());
            other.fulfil(write(client, &Settled::Stored(one_handle.clone())).unwrap());
            let failure = stored(client, one_handle).expect_err("there is no end");
            assert!(failure.to_string().contains("is too long"), "{failure}");
        });
    }
}
