//! Making an index.

use crate::{
    TraceError,
    files::write,
    index::{DOCUMENTS, DocumentRecord, Manifest, OFFSETS, STARTS, SUFFIXES, TOKENIZER, TOKENS, VERSION},
};
use blackletter_corpus::consumed::{self, ConsumedDocument};
use blackletter_dataset::{TokenStore, Tokens};
use libsais::SuffixArrayConstruction;
use std::{
    collections::HashMap,
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

/// What an index is made of.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'p> {
    /// The token store.
    pub dataset: &'p Path,
    /// The corpus that it was made from, for titles, licences and addresses.
    pub corpus: &'p Path,
}

/// Makes an index of a store's documents to train on in `out`, which is made if need be. Memory: about 8 bytes a token.
///
/// # Errors
/// When store or corpus cannot be read or do not belong together, or the index cannot be written.
pub fn build(inputs: Inputs<'_>, out: &Path, progress: &dyn Fn(&str)) -> Result<Manifest, TraceError> {
    progress("reading");
    let store = TokenStore::open(inputs.dataset)?;
    let manifest = store.manifest();
    let record = blackletter_corpus::audit::record(inputs.corpus)?;
    if record.root != manifest.corpus.root {
        return Err(TraceError::OtherCorpus { store: manifest.corpus.root.clone(), corpus: record.root });
    }
    let table = store.train();
    let total: u64 = table.iter().map(|entry| entry.tokens.len() as u64 + 1).sum();
    let limit = i32::MAX as u64;
    if total > limit {
        return Err(TraceError::TooMany { found: total, limit });
    }
    fs::create_dir_all(out).map_err(TraceError::file("make", out))?;
    // Whoever finds a manifest finds everything it names.
    let path = out.join(crate::index::FILE_NAME);
    match fs::remove_file(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            return Err(TraceError::file("replace", &path)(e));
        }
        _ => {}
    }
    let vocabulary = manifest.tokenizer.vocabulary;
    let mut starts = Vec::with_capacity(table.len());
    // The id after the last of the vocabulary ends every document.
    let narrow = vocabulary < u32::from(u16::MAX);
    let suffixes = if narrow {
        let mut ids: Vec<u16> = Vec::with_capacity(total as usize);
        for entry in table.iter() {
            starts.push(ids.len() as u64);
            match entry.tokens {
                Tokens::U16(tokens) => ids.extend_from_slice(tokens),
                // The vocabulary is smaller than what ids could be.
                Tokens::U32(tokens) => ids.extend(tokens.iter().map(|&id| id as u16)),
            }
            ids.push(vocabulary as u16);
        }
        write(&out.join(TOKENS), ids.iter().copied())?;
        progress("sorting suffixes");
        let made = SuffixArrayConstruction::for_text(&ids).in_owned_buffer32().single_threaded().run();
        made.map_err(|e| TraceError::Suffixes(format!("{e:?}")))?.into_vec()
    } else {
        let mut ids: Vec<i32> = Vec::with_capacity(total as usize);
        for entry in table.iter() {
            starts.push(ids.len() as u64);
            ids.extend((0..entry.tokens.len()).filter_map(|at| entry.tokens.get(at)).map(|id| id as i32));
            ids.push(vocabulary as i32);
        }
        write(&out.join(TOKENS), ids.iter().map(|&id| id as u32))?;
        progress("sorting suffixes");
        let made =
            SuffixArrayConstruction::for_text_mut(&mut ids).in_owned_buffer32().single_threaded().run();
        made.map_err(|e| TraceError::Suffixes(format!("{e:?}")))?.into_vec()
    };
    write(&out.join(SUFFIXES), suffixes.iter().map(|&at| at as u32))?;
    drop(suffixes);
    write(&out.join(STARTS), starts)?;
    progress("writing documents");
    let ids: Vec<&str> = table.iter().map(|entry| entry.id).collect();
    let bytes = documents(inputs.corpus, &ids, out)?;
    fs::copy(store.folder().join("tokenizer.json"), out.join(TOKENIZER))
        .map_err(TraceError::file("write", &out.join(TOKENIZER)))?;
    let made = Manifest {
        version: VERSION,
        corpus: manifest.corpus.root.clone(),
        tokenizer: manifest.tokenizer.blake3.clone(),
        vocabulary,
        wide: !narrow,
        tokens: total,
        documents: table.len() as u64,
        document_bytes: bytes,
    };
    let json = serde_json::to_vec_pretty(&made).map_err(|e| TraceError::damaged(&path, e))?;
    fs::write(&path, json).map_err(TraceError::file("write", &path))?;
    Ok(made)
}

/// Writes a line of JSON for each document, in the order of the tokens, and where each line begins; gives the bytes of lines.
fn documents(corpus: &Path, ids: &[&str], out: &Path) -> Result<u64, TraceError> {
    let known: HashMap<String, ConsumedDocument> =
        consumed::of_corpus(corpus, |_, _| 0)?.into_iter().map(|d| (d.id.clone(), d)).collect();
    let path = out.join(DOCUMENTS);
    let failed = TraceError::file("write", &path);
    let mut file = BufWriter::new(File::create(&path).map_err(&failed)?);
    let (mut offsets, mut at) = (Vec::with_capacity(ids.len()), 0u64);
    for id in ids {
        let document = known.get(*id).ok_or_else(|| {
            TraceError::damaged(corpus, format!("the corpus lacks the document {id} of the store"))
        })?;
        let line = DocumentRecord {
            id: document.id.clone(),
            dataset: document.dataset.clone(),
            title: document.title.clone(),
            license: document.license.clone(),
            license_basis: document.license_basis.clone(),
            url: document.url.clone(),
        };
        let mut line = serde_json::to_vec(&line).map_err(|e| TraceError::damaged(&path, e))?;
        line.push(b'\n');
        file.write_all(&line).map_err(&failed)?;
        offsets.push(at);
        at += line.len() as u64;
    }
    file.flush().map_err(&failed)?;
    write(&out.join(OFFSETS), offsets)?;
    Ok(at)
}
