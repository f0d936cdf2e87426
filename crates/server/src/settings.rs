//! How a server is set up, and its limits.

use blackletter_engine::BatchLimits;
use std::{fs, io, net::SocketAddr, path::Path, time::Duration};
use subtle::{Choice, ConstantTimeEq};

/// How to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where to listen.
    pub address: SocketAddr,
    /// The model's name in requests and answers.
    pub model: String,
    /// Who may ask; anybody when there are none.
    pub keys: Keys,
    /// Continuations that run together.
    pub max_concurrent: usize,
    /// Prompts that may wait for a place.
    pub queue: usize,
    /// Bytes of a request's body.
    pub max_body: usize,
    /// Tokens that one request may ask for, over all its prompts and continuations.
    pub max_tokens: usize,
    /// Prompts in one request.
    pub max_prompts: usize,
    /// Stop texts in one request, and bytes of each.
    pub max_stop: usize,
    /// Bytes of a schema or grammar as JSON.
    pub max_schema: usize,
    /// Connections at a time.
    pub max_connections: usize,
    /// For a request to come in whole, head and body each, and for a client to take a part of what is to go out.
    pub read_timeout: Duration,
    /// For a constraint to be compiled, and for one to wait until others are.
    pub compile_timeout: Duration,
    /// For a request to be answered whole.
    pub request_timeout: Duration,
    /// For requests in progress when the server is told to end.
    pub drain: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 8080)),
            model: "blackletter".into(),
            keys: Keys::default(),
            max_concurrent: 16,
            queue: 256,
            max_body: 4 << 20,
            max_tokens: 65_536,
            max_prompts: 256,
            max_stop: 16,
            max_schema: 256 << 10,
            max_connections: 1024,
            read_timeout: Duration::from_secs(20),
            compile_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(600),
            drain: Duration::from_secs(18),
        }
    }
}

impl Settings {
    /// What the batch takes on.
    pub fn batch(&self) -> BatchLimits {
        BatchLimits { sequences: self.max_concurrent, ..BatchLimits::default() }
    }
}

/// API keys, kept as hashes, so that all have one length.
#[derive(Clone, Default)]
pub struct Keys(Vec<[u8; 32]>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// Reads a file with one key a line; empty lines and those that begin with `#` are passed over.
    ///
    /// # Errors
    /// When it cannot be read, or has no key: a file of keys that lets everybody in would be a trap.
    pub fn read(path: &Path) -> io::Result<Self> {
        let keys = Self::of(fs::read_to_string(path)?.lines());
        if keys.is_empty() {
            return Err(io::Error::other("it has no key: give one a line"));
        }
        Ok(keys)
    }

    /// Keys from lines.
    pub fn of<'a>(lines: impl Iterator<Item = &'a str>) -> Self {
        let keys = lines.map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        Self(keys.map(|key| *blake3::hash(key.as_bytes()).as_bytes()).collect())
    }

    /// Whether anybody may ask.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `key` is one of them; takes the same time whichever it is and however much of it is right.
    pub fn allow(&self, key: &str) -> bool {
        let hash = *blake3::hash(key.as_bytes()).as_bytes();
        let found = self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&hash));
        found.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_file_and_no_other_is_allowed() {
        let keys = Keys::of("# ours\nfirst\n\n  second \n".lines());
        assert!(keys.allow("first") && keys.allow("second"));
        assert!(!keys.allow("") && !keys.allow("# ours") && !keys.allow("firs") && !keys.allow("first2"));
        assert!(!format!("{keys:?}").contains("first"));
    }

    #[test]
    fn a_file_without_keys_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "# none yet\n").unwrap();
        assert!(Keys::read(file.path()).is_err());
    }
}
