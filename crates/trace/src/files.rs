//! Arrays of numbers in files, little-endian, read in place from the memory map.

use crate::TraceError;
use memmap2::Mmap;
use std::{
    fs::File,
    io::{BufWriter, Write},
    marker::PhantomData,
    path::Path,
};

/// A number that arrays hold.
pub(crate) trait Number: Copy {
    /// Bytes.
    const SIZE: usize;
    /// From as many bytes as it has; zero from fewer.
    fn read(bytes: &[u8]) -> Self;
    /// Appends its bytes.
    fn write(self, to: &mut Vec<u8>);
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Number for $kind {
            const SIZE: usize = size_of::<Self>();

            fn read(bytes: &[u8]) -> Self {
                bytes.try_into().map_or(0, Self::from_le_bytes)
            }

            fn write(self, to: &mut Vec<u8>) {
                to.extend(self.to_le_bytes());
            }
        }
    )*};
}

number!(u16, u32, u64);

/// A file that is mapped.
pub(crate) struct Bytes(Option<Mmap>);

impl Bytes {
    /// Maps a file that should have `expected` bytes.
    #[allow(unsafe_code)]
    pub(crate) fn open(path: &Path, expected: u64) -> Result<Self, TraceError> {
        let file = File::open(path).map_err(TraceError::file("read", path))?;
        let bytes = file.metadata().map_err(TraceError::file("read", path))?.len();
        if bytes != expected {
            let reason = format!("it has {bytes} bytes where the index says {expected}");
            return Err(TraceError::damaged(path, reason));
        }
        if bytes == 0 {
            return Ok(Self(None));
        }
        // SAFETY: an index is written once and then only read; whoever shortens its files while they are in use must expect
        // what any memory map does then.
        let map = unsafe { Mmap::map(&file) }.map_err(TraceError::file("map", path))?;
        Ok(Self(Some(map)))
    }

    pub(crate) fn all(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// An array in a file.
pub(crate) struct Array<N> {
    bytes: Bytes,
    kind: PhantomData<N>,
}

impl<N: Number> Array<N> {
    /// Maps an array of `len` numbers.
    pub(crate) fn open(path: &Path, len: u64) -> Result<Self, TraceError> {
        let bytes = Bytes::open(path, len.saturating_mul(N::SIZE as u64))?;
        Ok(Self { bytes, kind: PhantomData })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.all().len() / N::SIZE
    }

    /// The number at a place; zero beyond the end.
    pub(crate) fn at(&self, place: usize) -> N {
        let from = place.saturating_mul(N::SIZE);
        N::read(self.bytes.all().get(from..from.saturating_add(N::SIZE)).unwrap_or_default())
    }
}

/// Writes an array.
pub(crate) fn write<N: Number>(path: &Path, numbers: impl IntoIterator<Item = N>) -> Result<(), TraceError> {
    let failed = TraceError::file("write", path);
    let mut file = BufWriter::with_capacity(1 << 20, File::create(path).map_err(&failed)?);
    let mut bytes = Vec::with_capacity(1 << 16);
    for number in numbers {
        number.write(&mut bytes);
        if bytes.len() + 8 > bytes.capacity() {
            file.write_all(&bytes).map_err(&failed)?;
            bytes.clear();
        }
    }
    file.write_all(&bytes).and_then(|()| file.flush()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_read_back_and_a_shortened_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, (0..100_000).map(|n: u32| n * 7)).unwrap();
        let array = Array::<u32>::open(&path, 100_000).unwrap();
        assert_eq!((array.len(), array.at(99_999), array.at(100_000)), (100_000, 699_993, 0));
        assert!(Array::<u16>::open(&path, 100_000).is_err());
        write(&path, [] as [u64; 0]).unwrap();
        assert_eq!(Array::<u64>::open(&path, 0).unwrap().len(), 0);
    }
}
