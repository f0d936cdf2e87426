//! Text and token ids as arguments.

use crate::failure::Failure;
use std::{
    fs,
    io::{self, Read},
    path::Path,
    str::FromStr,
};

/// Reads a UTF-8 file, or standard input for `-`.
pub fn read_text(path: &Path) -> Result<String, Failure> {
    let stdin = path.as_os_str() == "-";
    let shown = if stdin { "standard input".to_string() } else { path.display().to_string() };
    let mut bytes = Vec::new();
    let read = if stdin {
        io::stdin().lock().read_to_end(&mut bytes).map(drop)
    } else {
        fs::read(path).map(|b| bytes = b)
    };
    read.map_err(|e| Failure::failed(format!("cannot read {shown}: {e}")))?;
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        Failure::failed(format!(
            "{shown} is not UTF-8 text: byte {} (counted from 1) cannot stand there",
            at + 1
        ))
    })
}

/// Token ids written as `5,6,7`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(pub Vec<u32>);

impl FromStr for Ids {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let id = |part: &str| {
            part.trim().parse().map_err(|_| format!("{part:?} is not a token id: give numbers such as 5,6,7"))
        };
        text.split(',').map(id).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_with_commas_between() {
        assert_eq!("5, 6,7".parse(), Ok(Ids(vec![5, 6, 7])));
        for wrong in ["", "5,", "a", "-1", "4294967296", "5 6"] {
            assert!(wrong.parse::<Ids>().is_err(), "{wrong:?}");
        }
    }
}
