//! Hashes that a record stands on.
//!
//! * A **text** is hashed as its UTF-8 bytes with BLAKE3.
//! * A **document** is hashed as BLAKE3 in key-derivation mode (context [`DOCUMENT`]) over its fields in a fixed order. Each
//!   field is its name, then `0` when it has no value, or `1` and the value; name and value are each preceded by their length
//!   in bytes as 64 bits, little-endian. So no two different documents feed the hash the same bytes.
//! * The **root** of a corpus is BLAKE3 in key-derivation mode (context [`ROOT`]) over the number of documents (64 bits,
//!   little-endian) and their hashes in ascending order. It does not depend on the order of the documents or on how they are
//!   cut into files; a document that stands twice counts twice.

use blake3::Hasher;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Write};

/// Context of the hash of a document.
pub const DOCUMENT: &str = "blackletter 2026-11-23 document v1";
/// Context of the root over documents.
pub const ROOT: &str = "blackletter 2026-11-23 corpus root v1";

/// BLAKE3 of bytes, in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// Makes the hash of a document, field by field.
#[derive(Clone, Debug)]
pub struct DocumentHasher(Hasher);

impl Default for DocumentHasher {
    fn default() -> Self {
        Self(Hasher::new_derive_key(DOCUMENT))
    }
}

impl DocumentHasher {
    /// Adds a field; the order of fields matters.
    pub fn field(&mut self, name: &str, value: Option<&str>) {
        self.part(name.as_bytes());
        match value {
            None => {
                self.0.update(&[0]);
            }
            Some(value) => {
                self.0.update(&[1]);
                self.part(value.as_bytes());
            }
        }
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The hash.
    pub fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

/// Makes the root over documents; holds 32 bytes for each.
#[derive(Clone, Debug, Default)]
pub struct Root(Vec<[u8; 32]>);

impl Root {
    /// Adds a document's hash.
    pub fn add(&mut self, document: [u8; 32]) {
        self.0.push(document);
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The root, in hexadecimal.
    pub fn finish(mut self) -> String {
        self.0.sort_unstable();
        let mut hasher = Hasher::new_derive_key(ROOT);
        hasher.update(&(self.0.len() as u64).to_le_bytes());
        for document in &self.0 {
            hasher.update(document);
        }
        hasher.finalize().to_hex().to_string()
    }
}

/// What is recorded of a file: its size and hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileHash {
    /// Bytes.
    pub bytes: u64,
    /// BLAKE3, in hexadecimal.
    pub blake3: String,
    /// SHA-256, in hexadecimal, which Croissant and the Hugging Face Hub use.
    pub sha256: String,
}

impl FileHash {
    /// Reads to the end.
    ///
    /// # Errors
    /// When reading fails.
    pub fn of(mut file: impl Read) -> io::Result<Self> {
        let mut hasher = FileHasher::default();
        io::copy(&mut file, &mut hasher)?;
        Ok(hasher.finish())
    }
}

/// Makes a [`FileHash`] of what is written to it.
#[derive(Clone, Debug, Default)]
pub struct FileHasher {
    bytes: u64,
    blake3: Hasher,
    sha256: Sha256,
}

impl FileHasher {
    /// The hashes of what was written.
    pub fn finish(self) -> FileHash {
        let sha256 = self.sha256.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        FileHash { bytes: self.bytes, blake3: self.blake3.finalize().to_hex().to_string(), sha256 }
    }
}

impl Write for FileHasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.blake3.update(bytes);
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn document(fields: &[(&str, Option<&str>)]) -> [u8; 32] {
        let mut hasher = DocumentHasher::default();
        for (name, value) in fields {
            hasher.field(name, *value);
        }
        hasher.finish()
    }

    #[test]
    fn hashes_are_those_of_other_programs() {
        // `printf abc | b3sum`, `printf abc | sha256sum`.
        let hash = FileHash::of(&b"abc"[..]).unwrap();
        assert_eq!(hash.blake3, "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_eq!(hash.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!((hash.bytes, hex(b"abc")), (3, hash.blake3));
    }

    #[test]
    fn a_field_cannot_pass_for_another() {
        let all = [
            document(&[("a", Some("bc")), ("d", None)]),
            document(&[("a", Some("b")), ("cd", None)]),
            document(&[("a", Some("")), ("d", None)]),
            document(&[("a", None), ("d", None)]),
            document(&[("a", None), ("d", Some(""))]),
            document(&[("a", None)]),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(all[at + 1..].iter().all(|other| other != one));
        }
    }

    proptest! {
        #[test]
        fn the_root_knows_the_documents_and_not_their_order(
            mut documents in prop::collection::vec(any::<[u8; 32]>(), 1..20), cut in 0usize..20, by in any::<prop::sample::Index>(),
        ) {
            let root = |documents: &[[u8; 32]]| {
                let mut root = Root::default();
                documents.iter().for_each(|&d| root.add(d));
                root.finish()
            };
            let whole = root(&documents);
            let cut = cut.min(documents.len());
            let (mut one, mut two) = (Root::default(), Root::default());
            documents[cut..].iter().for_each(|&d| one.add(d));
            documents[..cut].iter().rev().for_each(|&d| two.add(d));
            one.merge(two);
            prop_assert_eq!(one.finish(), whole.clone());
            let at = by.index(documents.len());
            documents[at][0] ^= 1;
            prop_assert_ne!(root(&documents), whole.clone());
            documents[at][0] ^= 1;
            documents.push(documents[at]);
            prop_assert_ne!(root(&documents), whole);
        }
    }
}
