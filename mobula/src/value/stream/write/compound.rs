//! Lists, maps, structs and variants that are being written.

use serde::{Serialize, ser};

use super::{Kind, Writer, take};
use crate::value::stream::error::{Error, Step};

/// An array or a map being written.
pub(in crate::value::stream) struct Compound<'w, 'a> {
    writer: &'w mut Writer<'a>,
    kind: Kind,
    /// Where it begins in the stream.
    start: usize,
    /// The length that stands there.
    announced: usize,
    count: usize,
    /// Where the last key begins.
    key_start: usize,
    /// The variant whose content it is, for errors.
    variant: Option<&'static str>,
}

impl<'w, 'a> Compound<'w, 'a> {
    /// Begins one of this length, if it is known.
    #[inline]
    pub(super) fn begin(
        writer: &'w mut Writer<'a>,
        kind: Kind,
        length: Option<usize>,
    ) -> Result<Self, Error> {
        writer.deeper()?;
        let (start, announced) = (writer.out.len(), length.unwrap_or(0));
        writer.put_length(kind, announced)?;
        let key_start = writer.out.len();
        Ok(Self { writer, kind, start, announced, count: 0, key_start, variant: None })
    }

    /// It is the content of a variant.
    #[inline]
    pub(super) fn of(self, variant: &'static str) -> Self {
        Self { variant: Some(variant), ..self }
    }

    #[inline]
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let start = self.writer.out.len();
        self.count += 1;
        let written = value.serialize(&mut *self.writer);
        written.map_err(|error| {
            self.cut(start);
            self.place::<T>(error, Step::Index(self.count))
        })
    }

    #[inline]
    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        let start = self.writer.out.len();
        self.count += 1;
        let written = self.writer.put_text(name).and_then(|()| value.serialize(&mut *self.writer));
        written.map_err(|error| {
            self.cut(start);
            self.place::<T>(error, Step::Name(name.into()))
        })
    }

    /// Takes back the bytes from `start` on: an implementation of `Serialize` may go on without a part that it cannot
    /// write.
    #[cold]
    fn cut(&mut self, start: usize) {
        self.writer.out.truncate(start);
        self.count = self.count.saturating_sub(1);
    }

    #[cold]
    fn place<T: ?Sized>(&self, error: Error, step: Step) -> Error {
        let error = error.at(step, Some(std::any::type_name::<T>()));
        match self.variant {
            Some(variant) => error.at(Step::Name(variant.into()), None),
            None => error,
        }
    }

    #[inline]
    pub(super) fn finish(self) -> Result<(), Error> {
        if self.count == self.announced { Ok(()) } else { self.announce_again() }
    }

    /// There was another length at first, or none.
    #[cold]
    fn announce_again(self) -> Result<(), Error> {
        let Self { writer, kind, start, announced, count, .. } = self;
        let end = writer.out.len();
        writer.put_length(kind, announced)?;
        let old_bytes = writer.out.len() - end;
        writer.out.truncate(end);
        writer.put_length(kind, count)?;
        let head = writer.out.split_off(end);
        writer.out.splice(start..start + old_bytes, head);
        Ok(())
    }
}

impl ser::SerializeSeq for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTuple for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTupleStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeTupleVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.element(value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.count += 1;
        self.key_start = self.writer.out.len();
        let written = key.serialize(&mut *self.writer);
        written.map_err(|error| {
            self.cut(self.key_start);
            error.at(Step::Index(self.count), Some(std::any::type_name::<T>()))
        })
    }

    #[inline]
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let value_start = self.writer.out.len();
        let written = value.serialize(&mut *self.writer);
        written.map_err(|error| {
            // The keys that a flattened struct writes are the names of its fields.
            let key = self.writer.out.get(self.key_start..value_start).unwrap_or_default();
            let step = match take::<String>(key) {
                Ok((name, [])) => Step::Name(name.into()),
                _ => Step::Index(self.count.saturating_sub(1)),
            };
            self.cut(self.key_start);
            error.at(step, Some(std::any::type_name::<T>()))
        })
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.field(name, value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}

impl ser::SerializeStructVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = Error;

    #[inline]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.field(name, value)
    }

    #[inline]
    fn end(self) -> Result<(), Error> {
        self.finish()
    }
}
