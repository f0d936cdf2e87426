//! An index of a corpus alone, which is made when it is first asked for.

use crate::{Index, Inputs, TraceError, build, index::FILE_NAME};
use blackletter_dataset as dataset;
use blackletter_provenance::hash;
use std::{fs, path::Path};

/// The folder in an index that its token store is made in, and which goes when the index is there.
const STORE: &str = "store";
/// The folder that the tokenizer is put into meanwhile.
const TOKENIZER: &str = "tokenizer";

/// Hears what is done, and bytes done of all where they are counted.
pub type Progress<'p> = dyn Fn(&str, Option<(u64, u64)>) + 'p;

/// Opens the index of `corpus` in the folder `out`, with `tokenizer` (the text of a `tokenizer.json`); makes it if there is none
/// there.
///
/// # Errors
/// When `out` holds an index of another corpus or tokenizer, or something else; or the corpus cannot be read or the index not
/// written.
pub fn of_corpus(
    corpus: &Path,
    tokenizer: &str,
    out: &Path,
    progress: &Progress<'_>,
) -> Result<Index, TraceError> {
    let record = blackletter_corpus::audit::record(corpus)?;
    if out.join(FILE_NAME).is_file() {
        let index = Index::open(out)?;
        let made = index.manifest();
        if made.corpus != record.root {
            return Err(TraceError::OtherIndex { folder: out.into(), what: "corpus" });
        }
        if made.tokenizer != hash::hex(tokenizer.as_bytes()) {
            return Err(TraceError::OtherIndex { folder: out.into(), what: "tokenizer" });
        }
        return Ok(index);
    }
    let (store, own) = (out.join(STORE), out.join(TOKENIZER));
    fs::create_dir_all(&own).map_err(TraceError::file("make", &own))?;
    let path = own.join("tokenizer.json");
    fs::write(&path, tokenizer).map_err(TraceError::file("write", &path))?;
    let inputs =
        dataset::Inputs { corpus: Some(corpus.into()), tokenizer: own.clone(), ..dataset::Inputs::default() };
    dataset::build(&inputs, &store, &mut |event| {
        if let dataset::Progress::Documents(done, of) = event {
            progress("encoding", Some((done, of)));
        }
    })?;
    build(Inputs { dataset: &store, corpus }, out, &|step| progress(step, None))?;
    for folder in [store, own] {
        fs::remove_dir_all(&folder).map_err(TraceError::file("remove", &folder))?;
    }
    Index::open(out)
}
