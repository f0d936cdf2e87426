//! Results as files: `NAME.json` for programs, `NAME.md` for people, `NAME.jsonl` with every single thing that was measured.

use crate::EvalError;
use serde::Serialize;
use std::{fs, path::Path};

/// Writes a result to `folder`, which is made if need be.
///
/// # Errors
/// When it cannot be written.
pub fn write<R: Serialize, L: Serialize>(
    folder: &Path,
    name: &str,
    result: &R,
    markdown: &str,
    lines: &[L],
) -> Result<(), EvalError> {
    fs::create_dir_all(folder).map_err(EvalError::file("make", folder))?;
    let mut jsonl = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut jsonl, line)?;
        jsonl.push(b'\n');
    }
    let json = serde_json::to_string_pretty(result)? + "\n";
    for (ending, bytes) in
        [("json", json.as_bytes()), ("md", markdown.as_bytes()), ("jsonl", jsonl.as_slice())]
    {
        let path = folder.join(format!("{name}.{ending}"));
        fs::write(&path, bytes).map_err(EvalError::file("write", &path))?;
    }
    Ok(())
}
