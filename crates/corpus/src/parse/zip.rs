//! ZIP archives: every entry is read by its own content, under one budget for the whole file.

use std::io::{Cursor, Read};

use ::zip::ZipArchive;

use super::edgar::nested;
use super::{Budget, PART, ParseError, Parsed, unreadable};

/// Most an entry may grow: text rarely passes 20, XML of blank tables 200.
const MAX_RATIO: u64 = 500;
/// Inflated bytes that any entry may have, whatever its ratio.
const RATIO_FROM: u64 = 4 << 20;

pub(super) type Archive<'a> = ZipArchive<Cursor<&'a [u8]>>;

/// Opens an archive.
pub(super) fn open(bytes: &[u8]) -> Result<Archive<'_>, ParseError> {
    let archive =
        ZipArchive::new(Cursor::new(bytes)).map_err(|error| ParseError::Zip { reason: error.to_string() })?;
    if archive.len() > super::MAX_ENTRIES {
        return Err(ParseError::TooLarge {
            what: "entries of one archive",
            limit: super::MAX_ENTRIES as u64,
        });
    }
    Ok(archive)
}

/// Reads every entry. An entry that cannot be read comes back as such; the others go on.
pub(super) fn parse(_: &str, bytes: &[u8], budget: &mut Budget) -> Result<Vec<Parsed>, ParseError> {
    let mut archive = open(bytes)?;
    let mut out = Vec::new();
    let mut first_error = None;
    let mut good = 0;
    for index in 0..archive.len() {
        let (name, read) = entry(&mut archive, index, budget);
        let read = match read {
            Ok(None) => continue,
            Ok(Some(bytes)) => nested(&name, &bytes, budget),
            Err(error) => Err(error),
        };
        match read {
            Ok(parsed) => {
                good += 1;
                out.extend(parsed.into_iter().map(|mut parsed| {
                    let part = match parsed.extras.get(PART) {
                        Some(inner) => format!("{name}/{inner}"),
                        None => name.clone(),
                    };
                    parsed.extra(PART, part);
                    parsed
                }));
            }
            // The budget is spent for what follows, too.
            Err(error @ ParseError::TooLarge { .. }) if budget.bytes == 0 || budget.entries == 0 => {
                return Err(error);
            }
            Err(error) => {
                out.push(unreadable(&name, &error));
                first_error.get_or_insert(error);
            }
        }
    }
    match first_error {
        Some(error) if good == 0 => Err(error),
        None if out.is_empty() => Err(ParseError::Empty),
        _ => Ok(out),
    }
}

/// Name and bytes of an entry; `None` for folders and what operating systems add.
fn entry(
    archive: &mut Archive<'_>,
    index: usize,
    budget: &mut Budget,
) -> (String, Result<Option<Vec<u8>>, ParseError>) {
    let name = match archive.name_for_index(index) {
        Some(Ok(name)) => name.into_owned(),
        _ => format!("entry {}", index + 1),
    };
    if name.ends_with('/') || name.starts_with("__MACOSX/") || name.ends_with(".DS_Store") {
        return (name, Ok(None));
    }
    (name, inflate(archive, index, budget).map(Some))
}

/// Inflates the entry called `name`, when the archive has it.
pub(super) fn named(
    archive: &mut Archive<'_>,
    name: &str,
    budget: &mut Budget,
) -> Result<Option<Vec<u8>>, ParseError> {
    match archive.index_for_name(name) {
        Some(index) => inflate(archive, index, budget).map(Some),
        None => Ok(None),
    }
}

fn inflate(archive: &mut Archive<'_>, index: usize, budget: &mut Budget) -> Result<Vec<u8>, ParseError> {
    let spent = |what| ParseError::TooLarge { what, limit: super::MAX_INFLATED };
    budget.entries = budget
        .entries
        .checked_sub(1)
        .ok_or(ParseError::TooLarge { what: "entries of one file", limit: super::MAX_ENTRIES as u64 })?;
    let broken = |error: ::zip::result::ZipError| ParseError::Zip { reason: error.to_string() };
    let file = archive.by_index(index).map_err(broken)?;
    // Sizes in the header may lie: what counts is what comes out.
    let by_ratio = file.compressed_size().saturating_mul(MAX_RATIO).max(RATIO_FROM);
    let limit = by_ratio.min(budget.bytes);
    let mut bytes = Vec::new();
    let read = file.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    if bytes.len() as u64 > limit {
        if by_ratio <= budget.bytes {
            return Err(ParseError::TooLarge {
                what: "growth of a ZIP entry, times its size",
                limit: MAX_RATIO,
            });
        }
        budget.bytes = 0;
        return Err(spent("inflated bytes of one file"));
    }
    read.map_err(|error| ParseError::Zip { reason: error.to_string() })?;
    Ok(bytes)
}
