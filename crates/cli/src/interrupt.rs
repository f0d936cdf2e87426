//! Ctrl-C (or SIGTERM) while results are being made: the first ends the work, which prints what there is; the second ends the process.

use crate::failure::Failure;
use std::{
    process,
    sync::atomic::{AtomicBool, Ordering},
};

static ASKED: AtomicBool = AtomicBool::new(false);

/// From now on, Ctrl-C and SIGTERM are caught.
///
/// # Errors
/// When the system refuses.
pub fn catch() -> Result<(), Failure> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::Relaxed) {
            process::exit(130);
        }
    })?;
    Ok(())
}

/// Whether Ctrl-C has been pressed.
pub fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// How a command ends that has printed what it has.
///
/// # Errors
/// [`Failure::Interrupted`] after Ctrl-C.
pub fn outcome() -> Result<(), Failure> {
    if asked() { Err(Failure::Interrupted) } else { Ok(()) }
}
