//! Makes a token store from a corpus, a tokenizer and files of examples.

use crate::{
    error::DatasetError,
    example::{Example, LONGEST_LINE},
    manifest::{
        self, CorpusRef, Count, Manifest, Origin, SftInput, SftOrigin, SftRecord, SplitRecord, TokenizerRef,
        Width,
    },
    store::{TOKENIZER, TokenStore},
    table::{NewRow, TableWriter},
};
use arrow_array::RecordBatch;
use blackletter_corpus::{
    audit,
    document::Rows,
    report::OTHER,
    shards::{ShardReader, write_whole},
    steps::REFUSED,
};
use blackletter_provenance::{
    Accepted, Gate, PUBLIC_DOMAIN_BASES, Provenance, Refusal, Right, Shard, hash::Root,
};
use blackletter_tokenizer::{
    SpecialTokens, Tokenizer,
    template::{self, Encoded, Special},
};
use rayon::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    fs::{self, File},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::mpsc::sync_channel,
    thread,
};

/// Batches that are read ahead of those that are encoded.
const AHEAD: usize = 2;
/// Text that is encoded at a time, in bytes.
const WORK: usize = 32 << 20;
/// Examples that are encoded at a time.
const EXAMPLES: usize = 4096;
/// Reasons of refused lines of a file that are told apart.
const MOST_REASONS: usize = 500;
/// Folders of a store's files.
const FOLDERS: [&str; 3] = ["train", "heldout", "sft"];

/// What to make a store from.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// A corpus; none where there are examples alone.
    pub corpus: Option<PathBuf>,
    /// A directory with `tokenizer.json`.
    pub tokenizer: PathBuf,
    /// Files of examples in JSON lines.
    pub sft: Vec<PathBuf>,
    /// By what right examples are used.
    pub rights: Rights,
}

/// By what right examples are used. Those that a document of the corpus answers, under the licence that the corpus records for
/// its dataset, have passed the corpus' gate; all others have to pass this one.
#[derive(Clone, Debug, Default)]
pub struct Rights {
    /// The gate.
    pub gate: Gate,
    /// Licence of examples that state none.
    pub license: Option<String>,
    /// Its basis.
    pub license_basis: Option<String>,
}

impl Rights {
    /// The licence that an example is used under; why it is refused otherwise.
    fn judge(&self, example: &Example, passed: &Passed<'_>) -> Result<Right, Refusal> {
        let (license, basis) = match &example.license {
            // A basis goes with its licence.
            Some(license) => (Some(license.as_str()), example.license_basis.as_deref()),
            None => {
                (self.license.as_deref(), example.license_basis.as_deref().or(self.license_basis.as_deref()))
            }
        };
        if let (Some(document), Some(dataset), Some(license)) =
            (&example.document, &example.dataset, &example.license)
            && passed.trained.contains(document)
            && passed.licensed.contains(&(dataset.clone(), license.clone()))
        {
            return Ok(Right { license: license.clone(), basis: None, accepted: Vec::new() });
        }
        // A reference that is recorded for a rule of law names it.
        let named = PUBLIC_DOMAIN_BASES.iter().find(|(_, reference)| Some(*reference) == license);
        self.gate.judge(license, basis.or(named.map(|(rule, _)| *rule)))
    }
}

/// How far the work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bytes of text that have been encoded, of all.
    Documents(u64, u64),
    /// Bytes of examples that have been read, of all.
    Examples(u64, u64),
}

/// Numbers for parts of a store by name.
#[derive(Default)]
struct Origins(BTreeMap<(String, String), Count>);

impl Origins {
    fn add(&mut self, dataset: &str, license: &str, bytes: u64, tokens: u64) {
        let count = self.0.entry((dataset.to_owned(), license.to_owned())).or_default();
        count.documents += 1;
        count.bytes += bytes;
        count.tokens += tokens;
    }

    fn record(self, shards: Vec<manifest::ShardRecord>) -> SplitRecord {
        let mut total = Count::default();
        let origin =
            |((dataset, license), count): ((String, String), Count)| Origin { dataset, license, count };
        let origins: Vec<Origin> = self.0.into_iter().map(origin).collect();
        for Origin { count, .. } in &origins {
            total.documents += count.documents;
            total.bytes += count.bytes;
            total.tokens += count.tokens;
        }
        SplitRecord { total, origins, shards }
    }
}

/// The documents to make a store from.
struct Corpus {
    folder: PathBuf,
    reference: CorpusRef,
    text_bytes: u64,
    shards: Vec<Shard>,
    /// Datasets and licences that its gate let pass.
    licensed: HashSet<(String, String)>,
}

impl Corpus {
    /// The corpus in `folder`, or one without documents.
    fn open(folder: Option<&Path>) -> Result<Self, DatasetError> {
        let Some(folder) = folder else {
            let reference = CorpusRef { name: String::new(), root: Root::default().finish(), documents: 0 };
            let (folder, shards, licensed) = Default::default();
            return Ok(Self { folder, reference, text_bytes: 0, shards, licensed });
        };
        let Provenance { dataset, root, documents, text_bytes, shards, sources, .. } = audit::record(folder)?;
        let reference = CorpusRef { name: dataset.name, root, documents };
        let licensed = sources.into_iter().map(|source| (source.dataset, source.license)).collect();
        Ok(Self { folder: folder.into(), reference, text_bytes, shards, licensed })
    }

    /// The ids of the documents that must not be trained on, or of all others.
    fn ids(&self, heldout: bool) -> Result<HashSet<String>, DatasetError> {
        let mut ids = HashSet::new();
        for shard in self.shards.iter().filter(|shard| is_heldout(&shard.part) == heldout) {
            ids.extend(ShardReader::ids(&self.folder.join(&shard.path))?);
        }
        Ok(ids)
    }
}

/// Makes a store in `out`: new, empty, or an earlier store, which is replaced. The manifest is written last, so that a store
/// that was not finished is none.
///
/// # Errors
/// When something cannot be read or written, or the corpus or tokenizer cannot be used.
pub fn build(
    inputs: &Inputs,
    out: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<Manifest, DatasetError> {
    let corpus = Corpus::open(inputs.corpus.as_deref())?;
    let path = inputs.tokenizer.join(TOKENIZER);
    let json = fs::read(&path).map_err(DatasetError::file("read", &path))?;
    let tokenizer = Tokenizer::from_bytes(&json)?;
    let special = Special::of(&tokenizer)?;
    let vocabulary = u32::try_from(tokenizer.vocab_size()).map_err(|_| DatasetError::TooMany {
        what: "ids of the vocabulary",
        found: tokenizer.vocab_size() as u64,
        limit: u64::from(u32::MAX),
    })?;
    for path in &inputs.sft {
        File::open(path).map_err(DatasetError::file("read", path))?;
    }
    prepare(out)?;
    let width = if vocabulary <= 1 << 16 { Width::U16 } else { Width::U32 };
    write_whole(&out.join(TOKENIZER), &json)?;
    let [train, heldout] = documents(&corpus, out, &tokenizer, width, progress)?;
    // Names of documents are needed to refuse examples from those that must not be trained on, and to know the others.
    let ids = |heldout| if inputs.sft.is_empty() { Ok(HashSet::new()) } else { corpus.ids(heldout) };
    let passed = Passed { held: ids(true)?, trained: ids(false)?, licensed: &corpus.licensed };
    let sft = examples(inputs, out, &passed, &tokenizer, special, width, progress)?;
    let mut names: [BTreeSet<String>; 2] = Default::default();
    let origins = train.origins.iter().chain(&heldout.origins).map(|o| (&o.dataset, &o.license));
    for (dataset, license) in origins.chain(sft.origins.iter().map(|o| (&o.dataset, &o.license))) {
        names[0].insert(dataset.clone());
        names[1].insert(license.clone());
    }
    let [datasets, licenses] = names.map(|names| names.into_iter().collect::<Vec<_>>());
    for (what, names) in [("datasets", &datasets), ("licences", &licenses)] {
        if names.len() > usize::from(u16::MAX) {
            let limit = u64::from(u16::MAX);
            return Err(DatasetError::TooMany { what, found: names.len() as u64, limit });
        }
    }
    let blake3 = blake3::hash(&json).to_hex().to_string();
    let manifest = Manifest {
        version: manifest::VERSION,
        generator: env!("CARGO_PKG_VERSION").into(),
        corpus: corpus.reference,
        tokenizer: TokenizerRef { blake3, vocabulary, special },
        width,
        datasets,
        licenses,
        train,
        heldout,
        sft,
    };
    let mut json = serde_json::to_vec_pretty(&manifest)?;
    json.push(b'\n');
    write_whole(&out.join(manifest::FILE_NAME), &json)?;
    // What was written is what can be read.
    TokenStore::open(out)?;
    Ok(manifest)
}

/// Makes room in `out`.
fn prepare(out: &Path) -> Result<(), DatasetError> {
    fs::create_dir_all(out).map_err(DatasetError::file("make", out))?;
    let known = |name: &str| FOLDERS.contains(&name) || name == TOKENIZER || name == manifest::FILE_NAME;
    for entry in fs::read_dir(out).map_err(DatasetError::file("read", out))? {
        let name = entry.map_err(DatasetError::file("read", out))?.file_name();
        if !known(&name.to_string_lossy()) && !name.to_string_lossy().starts_with(".writing-") {
            return Err(DatasetError::Occupied { folder: out.into() });
        }
    }
    // A directory of a tokenizer or a model looks like part of a store, but has no shards beside it.
    let has = |name: &str| out.join(name).exists();
    if has(TOKENIZER) && !has(manifest::FILE_NAME) && !FOLDERS.iter().any(|name| has(name)) {
        return Err(DatasetError::Occupied { folder: out.into() });
    }
    // Folders of these names can hold something else: only files of a store are swept away.
    for folder in FOLDERS.map(|name| out.join(name)) {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let name = entry.map_err(DatasetError::file("read", &folder))?.file_name();
            let name = name.to_string_lossy();
            let number = name.strip_suffix(".arrow").unwrap_or_default();
            let shard = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            if !shard && !name.starts_with(".writing-") {
                return Err(DatasetError::Occupied { folder: out.into() });
            }
        }
    }
    let gone = |result: std::io::Result<()>| match result {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    // The manifest goes first: from here on this is no store.
    let path = out.join(manifest::FILE_NAME);
    gone(fs::remove_file(&path)).map_err(DatasetError::file("remove", &path))?;
    for folder in FOLDERS.map(|name| out.join(name)) {
        gone(fs::remove_dir_all(&folder)).map_err(DatasetError::file("remove", &folder))?;
    }
    Ok(())
}

/// Documents are read on a thread of their own, encoded on all, and written in the corpus' order.
fn documents(
    corpus: &Corpus,
    out: &Path,
    tokenizer: &Tokenizer,
    width: Width,
    progress: &mut dyn FnMut(Progress),
) -> Result<[SplitRecord; 2], DatasetError> {
    let mut writers = [TableWriter::new(out, "train", width), TableWriter::new(out, "heldout", width)];
    let mut origins: [Origins; 2] = Default::default();
    let mut done = 0;
    progress(Progress::Documents(0, corpus.text_bytes));
    thread::scope(|scope| -> Result<(), DatasetError> {
        let (sender, receiver) = sync_channel::<Result<(usize, Vec<RecordBatch>), DatasetError>>(AHEAD);
        scope.spawn(move || {
            for shard in &corpus.shards {
                let part = usize::from(is_heldout(&shard.part));
                // The store goes by the root in the record, so that the documents have to be those of the record.
                if let Err(e) = audit::check_shard(&corpus.folder, shard) {
                    return drop(sender.send(Err(e.into())));
                }
                let path = corpus.folder.join(&shard.path);
                let (mut work, mut size) = (Vec::new(), 0);
                let reader = match ShardReader::open(&path) {
                    Ok(reader) => reader,
                    Err(e) => return drop(sender.send(Err(e.into()))),
                };
                for batch in reader {
                    match batch {
                        Ok(batch) => {
                            size += batch.get_array_memory_size();
                            work.push(batch);
                        }
                        Err(e) => return drop(sender.send(Err(e.into()))),
                    }
                    if size >= WORK {
                        size = 0;
                        if sender.send(Ok((part, std::mem::take(&mut work)))).is_err() {
                            return;
                        }
                    }
                }
                if sender.send(Ok((part, work))).is_err() {
                    return;
                }
            }
        });
        for work in receiver {
            let (part, batches) = work?;
            for batch in &batches {
                let Ok(rows) = Rows::of(batch) else { continue };
                let texts: Vec<&str> = (0..rows.len()).map(|row| rows.text(row)).collect();
                let encoded = tokenizer.encode_batch(&texts, SpecialTokens::AsText)?;
                for (row, tokens) in encoded.iter().enumerate() {
                    let (id, bytes) = (rows.id(row), rows.text(row).len() as u64);
                    if tokens.len() > (u32::MAX - 2) as usize {
                        return Err(DatasetError::TooLong { id: id.into(), tokens: tokens.len() });
                    }
                    let (dataset, license) = (rows.dataset(row), rows.license(row));
                    writers[part].write(&NewRow {
                        id,
                        dataset,
                        license,
                        kind: "",
                        bytes,
                        tokens,
                        answers: &[],
                    })?;
                    origins[part].add(dataset, license, bytes, tokens.len() as u64);
                    done += bytes;
                }
                progress(Progress::Documents(done, corpus.text_bytes));
            }
        }
        Ok(())
    })?;
    let [train, heldout] = writers;
    let [of_train, of_heldout] = origins;
    Ok([of_train.record(train.finish()?), of_heldout.record(heldout.finish()?)])
}

fn is_heldout(part: &str) -> bool {
    part == "heldout"
}

/// What a corpus says of examples from its documents.
struct Passed<'c> {
    /// Documents that must not be trained on.
    held: HashSet<String>,
    /// All others.
    trained: HashSet<String>,
    /// Datasets and licences that its gate let pass.
    licensed: &'c HashSet<(String, String)>,
}

/// Examples of all files, in their order.
fn examples(
    inputs: &Inputs,
    out: &Path,
    passed: &Passed<'_>,
    tokenizer: &Tokenizer,
    special: Special,
    width: Width,
    progress: &mut dyn FnMut(Progress),
) -> Result<SftRecord, DatasetError> {
    let mut record = SftRecord::default();
    let mut origins: BTreeMap<(String, String, String), (u64, u64)> = BTreeMap::new();
    let mut accepted: BTreeMap<String, u64> = BTreeMap::new();
    let mut writer = TableWriter::new(out, "sft", width);
    let sizes = inputs.sft.iter().map(|path| fs::metadata(path).map_or(0, |m| m.len()));
    let (mut done, all) = (0, sizes.sum());
    for path in &inputs.sft {
        let file = File::open(path).map_err(DatasetError::file("read", path))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let stem = name.split('.').next().unwrap_or_default().to_owned();
        let mut lines = Lines { file: BufReader::new(file), hasher: blake3::Hasher::new() };
        let mut input =
            SftInput { name, blake3: String::new(), lines: 0, accepted: 0, refused: BTreeMap::new() };
        loop {
            let batch = lines.take(EXAMPLES).map_err(DatasetError::file("read", path))?;
            if batch.is_empty() {
                break;
            }
            type Read = Result<(Example, Right, Encoded), String>;
            let one = |line: &Vec<u8>| -> Read {
                let example = Example::parse(line).map_err(|e| e.to_string())?;
                if example.document.as_ref().is_some_and(|id| passed.held.contains(id)) {
                    return Err("its document is held out".into());
                }
                let right = inputs.rights.judge(&example, passed);
                let right = right.map_err(|refusal| format!("{REFUSED}{refusal}"))?;
                let encoded =
                    template::encode(tokenizer, special, &example.messages).map_err(|e| e.to_string())?;
                Ok((example, right, encoded))
            };
            let blank = |line: &&Vec<u8>| line.iter().all(u8::is_ascii_whitespace);
            let read: Vec<Option<Read>> =
                batch.par_iter().map(|line| (!blank(&line)).then(|| one(line))).collect();
            done += batch.iter().map(|line| line.len() as u64 + 1).sum::<u64>();
            for read in read.into_iter().flatten() {
                input.lines += 1;
                let (example, right, encoded) = match read {
                    Ok(read) => read,
                    Err(reason) => {
                        // Lines can state as many licences as there are lines.
                        let known = input.refused.len() < MOST_REASONS || input.refused.contains_key(&reason);
                        let reason = if known { reason } else { OTHER.to_owned() };
                        *input.refused.entry(reason).or_default() += 1;
                        continue;
                    }
                };
                input.accepted += 1;
                let dataset = example.dataset.as_deref().unwrap_or(&stem);
                for license in right.accepted {
                    *accepted.entry(license).or_default() += 1;
                }
                let license = right.license.as_str();
                writer.write(&NewRow {
                    id: example.document.as_deref().unwrap_or_default(),
                    dataset,
                    license,
                    kind: &example.kind,
                    bytes: example.bytes(),
                    tokens: &encoded.ids,
                    answers: &encoded.answers,
                })?;
                let tokens = encoded.ids.len() as u64;
                record.examples += 1;
                record.tokens += tokens;
                record.answer_tokens += encoded.answers.iter().map(|answer| answer.len() as u64).sum::<u64>();
                let key = (example.kind.clone(), dataset.to_owned(), license.to_owned());
                let sums = origins.entry(key).or_default();
                sums.0 += 1;
                sums.1 += tokens;
            }
            progress(Progress::Examples(done.min(all), all));
        }
        input.blake3 = lines.hasher.finalize().to_hex().to_string();
        record.inputs.push(input);
    }
    let origin = |((kind, dataset, license), (examples, tokens))| SftOrigin {
        kind,
        dataset,
        license,
        examples,
        tokens,
    };
    record.origins = origins.into_iter().map(origin).collect();
    let reason = |license: &str| inputs.rights.gate.accept().get(license).cloned().unwrap_or_default();
    let accepted = accepted.into_iter().map(|(license, documents)| {
        let reason = reason(&license);
        Accepted { license, reason, documents }
    });
    record.accepted = accepted.collect();
    record.shards = writer.finish()?;
    Ok(record)
}

/// Lines of a file, hashed as they are read. Of a line that is too long only the beginning is kept, which is refused later.
struct Lines {
    file: BufReader<File>,
    hasher: blake3::Hasher,
}

impl Lines {
    /// The next `most` lines, or fewer where they are long; none at the end.
    fn take(&mut self, most: usize) -> std::io::Result<Vec<Vec<u8>>> {
        let (mut lines, mut size) = (Vec::new(), 0);
        while lines.len() < most && size < WORK {
            let mut line = Vec::new();
            if self.file.by_ref().take(LONGEST_LINE as u64 + 1).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            self.hasher.update(&line);
            let mut whole = line.ends_with(b"\n");
            while !whole && line.len() > LONGEST_LINE {
                let mut rest = Vec::new();
                if self.file.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', &mut rest)? == 0 {
                    break;
                }
                self.hasher.update(&rest);
                whole = rest.ends_with(b"\n");
            }
            if line.ends_with(b"\n") {
                line.pop();
            }
            size += line.len();
            lines.push(line);
        }
        Ok(lines)
    }
}
