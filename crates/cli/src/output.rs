//! Standard output, buffered, with a closed pipe told apart from failure.

use crate::failure::Failure;
use std::io::{self, BufWriter, StdoutLock, Write};

/// Standard output for as long as a command prints its result.
pub struct Output(BufWriter<StdoutLock<'static>>);

impl Output {
    /// Locks standard output.
    pub fn stdout() -> Self {
        Self(BufWriter::new(io::stdout().lock()))
    }

    /// Writes text.
    ///
    /// # Errors
    /// [`Failure::OutputClosed`] when nobody reads any more.
    pub fn write(&mut self, text: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.0.write_all(text.as_ref()).map_err(Failure::output)
    }

    /// Lets the reader see what has been written so far.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> Result<(), Failure> {
        self.0.flush().map_err(Failure::output)
    }
}

/// Prints a whole result.
///
/// # Errors
/// As [`Output::write`].
pub fn print(text: impl AsRef<[u8]>) -> Result<(), Failure> {
    let mut output = Output::stdout();
    output.write(text)?;
    output.flush()
}
