//! How a command ends when it does not end well.

use std::{error::Error, fmt::Display, io, process::ExitCode};

/// Why a command ended early.
#[derive(Debug)]
pub enum Failure {
    /// The arguments cannot be followed: exit code 2.
    Usage(String),
    /// The work failed: exit code 1.
    Failed(Box<dyn Error + Send + Sync>),
    /// Nobody reads standard output any more: silence, exit code 0, as `head` and its like expect.
    OutputClosed,
    /// Ctrl-C; what there was has been printed: exit code 130.
    Interrupted,
}

impl Failure {
    /// Wrong usage that the argument parser cannot see.
    pub fn usage(message: impl Display) -> Self {
        Self::Usage(message.to_string())
    }

    /// A failure without another error behind it.
    pub fn failed(message: impl Display) -> Self {
        Self::Failed(message.to_string().into())
    }

    /// A failure to write standard output.
    pub fn output(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::OutputClosed;
        }
        Self::failed(format!("cannot write to standard output: {error}"))
    }

    /// Says what was wrong on standard error; gives the exit code.
    pub fn report(self) -> ExitCode {
        match self {
            Self::Usage(message) => {
                eprintln!("error: {message}\n\nFor more information, try '--help'.");
                ExitCode::from(2)
            }
            Self::Failed(error) => {
                eprintln!("error: {}", chain(error.as_ref()));
                ExitCode::FAILURE
            }
            Self::OutputClosed => ExitCode::SUCCESS,
            Self::Interrupted => ExitCode::from(130),
        }
    }
}

impl<E: Error + Send + Sync + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// An error and its causes, one a line; causes that the line above already tells are left out.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut last = text.clone();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !last.contains(&message) {
            text.push_str("\n  because: ");
            text.push_str(&message);
            last = message;
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the door")]
    struct Outer(#[source] Inner);

    #[derive(Debug, thiserror::Error)]
    #[error("the lock is stuck: {0}")]
    struct Inner(io::Error);

    #[test]
    fn causes_follow_on_their_own_lines_and_none_twice() {
        let error = Outer(Inner(io::Error::other("rust")));
        assert_eq!(chain(&error), "cannot open the door\n  because: the lock is stuck: rust");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_but_a_full_disk_is() {
        let closed = Failure::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(matches!(closed, Failure::OutputClosed));
        assert!(matches!(Failure::output(io::Error::other("disk full")), Failure::Failed(_)));
    }
}
