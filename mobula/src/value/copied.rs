//! Bytes copied out of memory that another process can still write.

use bytemuck::Pod;

/// A copy that no other process can write, aligned for the elements of every array.
pub(super) struct Copied {
    words: Vec<u128>,
    length: usize,
    form: Form,
}

/// The difference between a copy and its original.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(not(feature = "arrow"), expect(dead_code, reason = "only Arrow data has offsets"))]
pub(super) enum Form {
    Unchanged,
    /// Offsets of 32 bits, less the first of them.
    Offsets32,
    /// Offsets of 64 bits, less the first of them.
    Offsets64,
}

impl Copied {
    /// Copies `bytes`, each of which is loaded once.
    pub(super) fn of(bytes: &[u8], form: Form) -> Self {
        let mut words = mobula_client::internal::copied_once(bytes);
        let copy = &mut bytemuck::cast_slice_mut(&mut words)[..bytes.len()];
        let form = if form.is_of(copy) { Form::Unchanged } else { form };
        form.apply(copy);
        Self { words, length: bytes.len(), form }
    }

    /// How the copy differs from the object's bytes.
    pub(super) fn form(&self) -> Form {
        self.form
    }
}

impl AsRef<[u8]> for Copied {
    fn as_ref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.length]
    }
}

impl Form {
    /// Whether `bytes` are in this form already.
    pub(super) fn is_of(self, bytes: &[u8]) -> bool {
        match self {
            Self::Unchanged => true,
            Self::Offsets32 => bytes.iter().take(size_of::<u32>()).all(|byte| *byte == 0),
            Self::Offsets64 => bytes.iter().take(size_of::<u64>()).all(|byte| *byte == 0),
        }
    }

    /// Brings aligned bytes into this form. Forged offsets stay forged: they are validated afterwards.
    fn apply(self, bytes: &mut [u8]) {
        fn rebase<O: Pod>(bytes: &mut [u8], less: impl Fn(O, O) -> O) {
            let whole = bytes.len() - bytes.len() % size_of::<O>();
            let offsets = bytemuck::cast_slice_mut::<u8, O>(&mut bytes[..whole]);
            if let Some(&first) = offsets.first() {
                offsets.iter_mut().for_each(|offset| *offset = less(*offset, first));
            }
        }
        match self {
            Self::Unchanged => {}
            Self::Offsets32 => rebase::<u32>(bytes, u32::wrapping_sub),
            Self::Offsets64 => rebase::<u64>(bytes, u64::wrapping_sub),
        }
    }
}
