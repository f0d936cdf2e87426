//! Whether a model is what its record says, from the weights to the documents.

use crate::{
    audit::{self, AuditError},
    consumed::{self, ConsumedDocument},
    shards::ShardError,
};
use blackletter_provenance::{
    DOCUMENTS_FILE, Derivation, FILE_NAME, ModelFile, ModelRecord, ModelRecordError, SourceUse, model_files,
};
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// Things of one kind that are named, before the rest is only counted.
const NAMED: usize = 10;

/// The audit of a model cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ModelAuditError {
    /// The record or a file cannot be read.
    #[error(transparent)]
    Record(#[from] ModelRecordError),
    /// The corpus has no record, or cannot be read.
    #[error(transparent)]
    Corpus(#[from] AuditError),
    /// The list of documents cannot be written.
    #[error(transparent)]
    List(#[from] ShardError),
}

/// What an audit of a model came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ModelAudit {
    /// Files that were hashed.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Documents in the list.
    pub documents: u64,
    /// The root over documents that follows from the list.
    pub root: String,
    /// Whether the texts themselves were there to be compared.
    pub corpus: bool,
    /// The model whose weights the training began with, in a sentence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// What was done to the model after its training, in sentences, with what is not recorded of that.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub derivations: Vec<String>,
    /// Everything that differs, in sentences that name the file or document. Empty when all is as recorded.
    pub findings: Vec<String>,
}

/// Computes everything in the record of the model in `folder` anew, and where the corpus is at hand every document in it too.
///
/// # Errors
/// When there is no record to compare with, or something cannot be read. What differs is no error but a finding.
pub fn audit_model(folder: &Path, corpus: Option<&Path>) -> Result<ModelAudit, ModelAuditError> {
    let record = ModelRecord::read(folder)?;
    let derivations = record.derivations.iter().map(Derivation::sentence).collect();
    let base = record.base.as_ref().map(|base| base.sentence());
    let mut audit = ModelAudit { corpus: corpus.is_some(), base, derivations, ..ModelAudit::default() };
    if record.seal != record.expected_seal()? {
        audit.findings.push(format!("{FILE_NAME} itself was changed: it does not have the hash of its seal"));
    }
    files(&record, &model_files(folder)?, &mut audit);
    let tokenizer = record.files.iter().find(|file| file.path == "tokenizer.json");
    if tokenizer.is_some_and(|file| file.blake3 != record.tokenizer) {
        audit
            .findings
            .push("tokenizer.json is not the tokenizer that the documents were encoded with".into());
    }
    // A file whose name leads elsewhere is not read.
    let documents = match consumed::read(&folder.join(DOCUMENTS_FILE)) {
        Ok(documents) => documents,
        Err(e) => {
            audit.findings.push(e.to_string());
            return Ok(audit);
        }
    };
    list(&record, &documents, &mut audit);
    if let Some(corpus) = corpus {
        texts(&record, &documents, corpus, &mut audit)?;
    }
    Ok(audit)
}

fn files(record: &ModelRecord, found: &[ModelFile], audit: &mut ModelAudit) {
    audit.files = found.len();
    audit.bytes = found.iter().map(|file| file.bytes).sum();
    for recorded in &record.files {
        let path = &recorded.path;
        match found.iter().find(|file| file.path == *path) {
            None => audit.findings.push(format!("{path} is in the record and not there")),
            Some(file) if file.bytes != recorded.bytes => {
                let (bytes, was) = (file.bytes, recorded.bytes);
                audit.findings.push(format!("{path} was changed: it has {bytes} bytes, not {was}"));
            }
            Some(file) if file != recorded => {
                let (hash, was) = (&file.blake3, &recorded.blake3);
                audit.findings.push(format!("{path} was changed: its BLAKE3 is {hash}, not {was}"));
            }
            Some(_) => {}
        }
    }
    for file in found.iter().filter(|file| !record.files.iter().any(|r| r.path == file.path)) {
        audit.findings.push(format!("{} is not in the record", file.path));
    }
}

/// Compares the list of documents with the record.
fn list(record: &ModelRecord, documents: &[ConsumedDocument], audit: &mut ModelAudit) {
    audit.documents = documents.len() as u64;
    let mut differs = |what: &str, found: String, recorded: String| {
        if found != recorded {
            audit
                .findings
                .push(format!("{what} of {DOCUMENTS_FILE} is {found}, and the record says {recorded}"));
        }
    };
    let consumed = documents.iter().filter(|d| d.tokens > 0).count();
    let root = consumed::root(documents).unwrap_or_else(|| "none, since a hash in it is not one".into());
    differs("the root", root.clone(), record.corpus.root.clone());
    differs("the number of documents", documents.len().to_string(), record.documents.documents.to_string());
    differs("the number of consumed documents", consumed.to_string(), record.documents.consumed.to_string());
    audit.root = root;
    let mut found = consumed::sources(documents);
    let mut recorded = record.sources.clone();
    found.sort();
    recorded.sort();
    let shown = |source: &SourceUse| {
        let (documents, bytes, tokens) = (source.documents, source.text_bytes, source.tokens);
        format!(
            "{} under {}: {documents} documents, {bytes} bytes, {tokens} tokens",
            source.dataset, source.license
        )
    };
    for source in found.iter().filter(|source| !recorded.contains(source)) {
        audit.findings.push(format!("{DOCUMENTS_FILE} holds, and the record does not, {}", shown(source)));
    }
    for source in recorded.iter().filter(|source| !found.contains(source)) {
        audit.findings.push(format!("the record states, and {DOCUMENTS_FILE} does not, {}", shown(source)));
    }
    if let Some(corpus) = &record.corpus.record
        && corpus.root != record.corpus.root
    {
        let (one, other) = (&corpus.root, &record.corpus.root);
        audit.findings.push(format!("the corpus' own record has the root {one}, and the model's {other}"));
    }
}

/// Compares the list of documents with the documents.
fn texts(
    record: &ModelRecord,
    documents: &[ConsumedDocument],
    corpus: &Path,
    audit: &mut ModelAudit,
) -> Result<(), ModelAuditError> {
    // The corpus by itself: files, texts, sums.
    match audit::audit(corpus) {
        Ok(audited) if audited.root != record.corpus.root => {
            let (found, recorded) = (audited.root, &record.corpus.root);
            audit
                .findings
                .push(format!("the corpus has the root {found}, and the model was trained on {recorded}"));
        }
        Ok(_) => {}
        Err(e @ (AuditError::Missing { .. } | AuditError::Read { .. })) => return Err(e.into()),
        Err(e) => audit.findings.push(format!("the corpus: {e}")),
    }
    let there = match consumed::of_corpus(corpus, |_, _| 0) {
        Ok(there) => there,
        Err(e) => {
            audit.findings.push(format!("the corpus: {e}"));
            return Ok(());
        }
    };
    // Several documents may have one id: what is the same goes first, the rest is paired by id.
    let mut left: BTreeMap<&str, Vec<&ConsumedDocument>> = BTreeMap::new();
    for document in &there {
        left.entry(&document.id).or_default().push(document);
    }
    let mut unmatched = Vec::new();
    for document in documents {
        let same = |found: &&ConsumedDocument| {
            ConsumedDocument { tokens: document.tokens, ..(*found).clone() } == *document
        };
        let found = left.get_mut(document.id.as_str());
        match found.and_then(|found| found.iter().position(same).map(|at| found.swap_remove(at))) {
            Some(_) => {}
            None => unmatched.push(document.id.as_str()),
        }
    }
    let (mut changed, mut gone) = (Vec::new(), Vec::new());
    for id in unmatched {
        match left.get_mut(id).and_then(Vec::pop) {
            Some(_) => changed.push(id),
            None => gone.push(id),
        }
    }
    let new: Vec<&str> = left.into_values().flatten().map(|document| document.id.as_str()).collect();
    for (what, ids) in [
        ("is not the document that the model was trained on", changed),
        ("is in the model's list and not in the corpus", gone),
        ("is in the corpus and not in the model's list", new),
    ] {
        for id in ids.iter().take(NAMED) {
            audit.findings.push(format!("the document {id} {what}"));
        }
        if ids.len() > NAMED {
            audit.findings.push(format!("and {} more: {what}", ids.len() - NAMED));
        }
    }
    Ok(())
}
