//! A store for the tests that need one.

use mobula_client::{Client, Layout, Object};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::value::{Encoded, Source, ValueError, decode, encode, format};

pub(super) fn client() -> Client {
    Client::fake()
}

/// Puts a value as the runtime does.
pub(super) fn put<T: Serialize + ?Sized>(client: &Client, value: &T) -> Object {
    put_encoded(client, &encode(value).unwrap(), format::VALUE)
}

pub(super) fn put_encoded(client: &Client, encoded: &Encoded, format: u32) -> Object {
    let references = encoded.references().to_vec();
    let mut writer = client.create(Layout { length: encoded.len() as u64, format, references }).unwrap();
    encoded.write_into(&mut writer);
    writer.seal()
}

/// Gets a value as the runtime does.
pub(super) fn get<T: DeserializeOwned>(client: &Client, object: &Object) -> Result<T, ValueError> {
    let references = object.references().into_iter().map(|id| client.hold(id).unwrap()).collect();
    decode(Source::object(client.get(object.id())?, references))
}
