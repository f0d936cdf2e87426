//! Documents that are nearly the same: MinHash over word 5-grams, with locality-sensitive hashing to find who to compare.
//!
//! * [`Signature`]: for each of 120 hash functions, the least hash of the text's 5-grams of words (runs of letters and digits,
//!   in lower case). The share of equal places of two signatures estimates the Jaccard similarity J of their sets of 5-grams,
//!   with a standard error of √(J(1−J)/120): 0.037 at 0.8. (Broder, *On the resemblance and containment of documents*, 1997.)
//! * Documents are compared when they agree on all 6 places of one of 20 bands, which finds 1 − (1 − J⁶)²⁰ of the pairs of
//!   similarity J: 0.998 at 0.8, 0.61 at 0.6. What is compared is decided by the signatures' estimate.
//! * Memory is bounded: [`Near`] sorts bands and keeps signatures within its budget, and in files beyond it; besides, it
//!   holds 16 bytes for each document, and an index of the bands of what is kept of one cluster.

use super::DedupError;
use foldhash::fast::FixedState;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, HashMap, HashSet},
    fs::File,
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// Words in a shingle.
pub const SHINGLE: usize = 5;
const BANDS: usize = 20;
const ROWS: usize = 6;
const PLACES: usize = BANDS * ROWS;

/// What a document is compared by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature([u32; PLACES]);

/// splitmix64: mixes a counter into well-spread bits.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// (a, b) of the hash functions h ↦ high half of a·h + b.
const FUNCTIONS: [(u64, u64); PLACES] = {
    let mut functions = [(0, 0); PLACES];
    let mut at = 0;
    while at < PLACES {
        functions[at] = (mix(2 * at as u64) | 1, mix(2 * at as u64 + 1));
        at += 1;
    }
    functions
};

/// Hashes of a text's words: runs of letters and digits, in lower case.
pub(crate) fn words(text: &str) -> impl Iterator<Item = u64> {
    text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(|word| {
        // FNV-1a over lower-case bytes, then mixed.
        let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let start = 0xcbf2_9ce4_8422_2325;
        mix(if word.is_ascii() {
            word.bytes().fold(start, |hash, byte| step(hash, byte.to_ascii_lowercase()))
        } else {
            let mut buffer = [0; 4];
            word.chars()
                .flat_map(char::to_lowercase)
                .fold(start, |hash, c| c.encode_utf8(&mut buffer).bytes().fold(hash, step))
        })
    })
}

/// Hashes of the n-grams of words, in order.
pub(crate) fn ngrams<const N: usize>(text: &str) -> impl Iterator<Item = u64> {
    let mut window = [0u64; N];
    words(text).enumerate().filter_map(move |(at, word)| {
        window.rotate_left(1);
        window[N - 1] = word;
        (at + 1 >= N).then(|| {
            mix(window.iter().fold(0u64, |hash, &word| hash.rotate_left(11).wrapping_mul(31) ^ word))
        })
    })
}

impl Signature {
    /// A text's signature; none for a text of fewer than five words.
    pub fn of(text: &str) -> Option<Self> {
        let mut least = [u32::MAX; PLACES];
        let mut any = false;
        for shingle in ngrams::<SHINGLE>(text) {
            any = true;
            for (least, (a, b)) in least.iter_mut().zip(FUNCTIONS) {
                let hash = (a.wrapping_mul(shingle).wrapping_add(b) >> 32) as u32;
                *least = hash.min(*least);
            }
        }
        any.then_some(Self(least))
    }

    /// The estimate of the Jaccard similarity.
    pub fn similarity(&self, other: &Self) -> f64 {
        let equal = self.0.iter().zip(&other.0).filter(|(a, b)| a == b).count();
        equal as f64 / PLACES as f64
    }

    fn bands(&self) -> impl Iterator<Item = u128> {
        self.0.chunks_exact(ROWS).enumerate().map(|(band, rows)| {
            let hash = rows.iter().fold(0u64, |hash, &row| mix(hash ^ u64::from(row)));
            (band as u128) << 64 | u128::from(hash)
        })
    }

    fn to_bytes(&self) -> [u8; 4 * PLACES] {
        let mut bytes = [0; 4 * PLACES];
        bytes
            .chunks_exact_mut(4)
            .zip(self.0)
            .for_each(|(to, place)| to.copy_from_slice(&place.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8; 4 * PLACES]) -> Self {
        let mut places = [0; PLACES];
        for (place, from) in places.iter_mut().zip(bytes.chunks_exact(4)) {
            *place = from.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        }
        Self(places)
    }
}

/// Sorts (key, document) pairs within a budget of memory, in files beyond it.
pub struct Sorter {
    folder: PathBuf,
    most: usize,
    held: Vec<(u128, u64)>,
    runs: Vec<PathBuf>,
}

impl Sorter {
    /// Sorts within `memory` bytes and files in `folder`.
    pub fn new(folder: &Path, memory: usize) -> Self {
        let most = (memory / size_of::<(u128, u64)>()).max(1024);
        Self { folder: folder.into(), most, held: Vec::new(), runs: Vec::new() }
    }

    /// Adds a pair.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn push(&mut self, key: u128, document: u64) -> Result<(), DedupError> {
        self.held.push((key, document));
        if self.held.len() >= self.most { self.spill() } else { Ok(()) }
    }

    fn spill(&mut self) -> Result<(), DedupError> {
        self.held.sort_unstable();
        let path = self.folder.join(format!("run-{}-{}", std::ptr::from_ref(self).addr(), self.runs.len()));
        let write = || -> io::Result<()> {
            let mut file = BufWriter::new(File::create_new(&path)?);
            for (key, document) in &self.held {
                file.write_all(&key.to_le_bytes())?;
                file.write_all(&document.to_le_bytes())?;
            }
            file.flush()
        };
        write().map_err(|source| DedupError::Spill { path: path.clone(), source })?;
        self.held.clear();
        self.runs.push(path);
        Ok(())
    }

    /// Calls `group` with the documents of each key that more than one has, in the order of keys.
    ///
    /// # Errors
    /// When a file cannot be read, or `group` fails.
    pub fn groups(
        mut self,
        mut group: impl FnMut(&[u64]) -> Result<(), DedupError>,
    ) -> Result<(), DedupError> {
        self.held.sort_unstable();
        let mut runs: Vec<Run> = Vec::with_capacity(self.runs.len());
        for path in &self.runs {
            let file = File::open(path).map_err(|source| DedupError::Spill { path: path.clone(), source })?;
            runs.push(Run { file: BufReader::new(file), path: path.clone() });
        }
        let mut heap = BinaryHeap::new();
        let mut held = self.held.drain(..);
        heap.extend(held.next().map(|pair| Reverse((pair, usize::MAX))));
        for (at, run) in runs.iter_mut().enumerate() {
            heap.extend(run.next()?.map(|pair| Reverse((pair, at))));
        }
        let (mut key, mut members) = (None, Vec::new());
        while let Some(Reverse(((next, document), from))) = heap.pop() {
            if key != Some(next) {
                if members.len() > 1 {
                    group(&members)?;
                }
                members.clear();
                key = Some(next);
            }
            members.push(document);
            let refill = match runs.get_mut(from) {
                Some(run) => run.next()?,
                None => held.next(),
            };
            heap.extend(refill.map(|pair| Reverse((pair, from))));
        }
        if members.len() > 1 { group(&members) } else { Ok(()) }
    }
}

struct Run {
    file: BufReader<File>,
    path: PathBuf,
}

impl Run {
    fn next(&mut self) -> Result<Option<(u128, u64)>, DedupError> {
        let mut key = [0; 16];
        let mut document = [0; 8];
        let failed = |source| DedupError::Spill { path: self.path.clone(), source };
        match self.file.read_exact(&mut key) {
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other.map_err(failed)?,
        }
        self.file.read_exact(&mut document).map_err(failed)?;
        Ok(Some((u128::from_le_bytes(key), u64::from_le_bytes(document))))
    }
}

/// Signatures by document, within a budget of memory and in a file beyond it.
struct Signatures {
    held: Vec<Signature>,
    most: usize,
    path: PathBuf,
    file: Option<BufWriter<File>>,
    count: u64,
}

impl Signatures {
    fn push(&mut self, signature: &Signature) -> Result<(), DedupError> {
        self.count += 1;
        if self.held.len() < self.most {
            self.held.push(signature.clone());
            return Ok(());
        }
        let mut write = || -> io::Result<()> {
            if self.file.is_none() {
                let file = File::options().create_new(true).read(true).write(true).open(&self.path)?;
                self.file = Some(BufWriter::new(file));
            }
            self.file.as_mut().map_or(Ok(()), |file| file.write_all(&signature.to_bytes()))
        };
        write().map_err(|source| DedupError::Spill { path: self.path.clone(), source })
    }

    fn get(&mut self, at: u64) -> Result<Signature, DedupError> {
        let place = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(signature) = self.held.get(place) {
            return Ok(signature.clone());
        }
        let offset = (at - self.held.len() as u64) * 4 * PLACES as u64;
        let mut bytes = [0; 4 * PLACES];
        let mut read = || -> io::Result<()> {
            let file = self.file.as_mut().ok_or(io::ErrorKind::NotFound)?;
            file.flush()?;
            let file = file.get_mut();
            file.seek(SeekFrom::Start(offset))?;
            file.read_exact(&mut bytes)
        };
        read().map_err(|source| DedupError::Spill { path: self.path.clone(), source })?;
        Ok(Signature::from_bytes(&bytes))
    }
}

/// Finds documents that are nearly the same.
pub struct Near {
    threshold: f64,
    bands: Sorter,
    signatures: Signatures,
    /// Documents that have a signature, in the order added.
    documents: Vec<u64>,
}

/// A document that is not needed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Duplicate {
    /// The document.
    pub document: u64,
    /// The one that is kept in its place.
    pub of: u64,
    /// Their similarity.
    pub similarity: f64,
}

impl Near {
    /// Finds documents of at least this similarity within `memory` bytes, and files in `folder` beyond them.
    pub fn new(folder: &Path, threshold: f64, memory: usize) -> Self {
        let held = memory / 2 / size_of::<Signature>();
        let path = folder.join("signatures");
        let signatures = Signatures { held: Vec::new(), most: held, path, file: None, count: 0 };
        Self { threshold, bands: Sorter::new(folder, memory / 2), signatures, documents: Vec::new() }
    }

    /// Adds a document.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn add(&mut self, document: u64, signature: &Signature) -> Result<(), DedupError> {
        let place = self.signatures.count;
        self.signatures.push(signature)?;
        self.documents.push(document);
        signature.bands().try_for_each(|band| self.bands.push(band, place))
    }

    /// The clusters of documents that may be similar, two or more in each.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn clusters(self) -> Result<Clusters, DedupError> {
        let Self { threshold, bands, signatures, documents } = self;
        let mut parents: Vec<u64> = (0..signatures.count).collect();
        bands.groups(|places| {
            if let Some((&first, others)) = places.split_first() {
                others.iter().for_each(|&other| join(&mut parents, first, other));
            }
            Ok(())
        })?;
        let mut members: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for place in 0..signatures.count {
            let root = find(&mut parents, place);
            if root != place {
                members.entry(root).or_default().push(place);
            }
        }
        for (root, places) in &mut members {
            places.push(*root);
            places.sort_unstable();
        }
        Ok(Clusters { threshold, signatures, documents, members: members.into_values().collect() })
    }
}

fn find(parents: &mut [u64], mut place: u64) -> u64 {
    while let Some(&parent) = parents.get(place as usize) {
        if parent == place {
            break;
        }
        let above = parents.get(parent as usize).copied().unwrap_or(parent);
        if let Some(own) = parents.get_mut(place as usize) {
            *own = above;
        }
        place = above;
    }
    place
}

fn join(parents: &mut [u64], one: u64, two: u64) {
    let (one, two) = (find(parents, one), find(parents, two));
    if let Some(parent) = parents.get_mut(one.max(two) as usize) {
        *parent = one.min(two);
    }
}

/// Documents linked by shared bands, directly or over others.
pub struct Clusters {
    threshold: f64,
    signatures: Signatures,
    documents: Vec<u64>,
    /// Places of signatures.
    members: Vec<Vec<u64>>,
}

impl Clusters {
    /// All documents in clusters.
    pub fn documents(&self) -> impl Iterator<Item = u64> {
        self.members.iter().flatten().filter_map(|&place| self.documents.get(place as usize).copied())
    }

    /// Which documents are not needed. In each cluster the best document by `rank` is kept, then every one that is not
    /// similar to one kept already: so each that goes has one like it that stays, however long the chain between others is.
    /// The answer does not depend on the order in which documents were added when no two have the same rank.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn duplicates<R: Ord>(
        mut self,
        rank: impl Fn(u64) -> Option<R>,
    ) -> Result<Vec<Duplicate>, DedupError> {
        let mut duplicates = Vec::new();
        for places in &self.members {
            let document = |place: u64| self.documents.get(place as usize).copied().unwrap_or(u64::MAX);
            // Documents without a rank are out of it already.
            let ranked = places.iter().filter_map(|&place| rank(document(place)).map(|rank| (rank, place)));
            let mut ranked: Vec<(R, u64)> = ranked.collect();
            ranked.sort_unstable();
            // Places of those kept, by band: a document is compared with those it shares a band with.
            let mut kept: HashMap<u128, Vec<u64>, FixedState> = HashMap::default();
            for (_, place) in ranked {
                let signature = self.signatures.get(place)?;
                let mut compared: HashSet<u64, FixedState> = HashSet::default();
                let mut like = None;
                for &other in signature.bands().filter_map(|band| kept.get(&band)).flatten() {
                    if compared.insert(other) {
                        let similarity = signature.similarity(&self.signatures.get(other)?);
                        // The most similar one; of several, that of the best rank in the first band shared.
                        if similarity >= self.threshold && like.is_none_or(|(_, best)| similarity > best) {
                            like = Some((other, similarity));
                        }
                    }
                }
                match like {
                    Some((of, similarity)) => {
                        duplicates.push(Duplicate {
                            document: document(place),
                            of: document(of),
                            similarity,
                        });
                    }
                    None => signature.bands().for_each(|band| kept.entry(band).or_default().push(place)),
                }
            }
        }
        duplicates.sort_unstable_by_key(|duplicate| duplicate.document);
        Ok(duplicates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A text of `length` words of which those in `changed` are others.
    fn text(seed: u64, length: u64, changed: impl Fn(u64) -> bool) -> String {
        let word = |n: u64| format!("w{}", mix(if changed(n) { n ^ seed << 32 } else { n }) % 100_000);
        (0..length).map(word).collect::<Vec<_>>().join(" ")
    }

    fn jaccard(a: &str, b: &str) -> f64 {
        let (a, b): (HashSet<u64>, HashSet<u64>) =
            (ngrams::<SHINGLE>(a).collect(), ngrams::<SHINGLE>(b).collect());
        a.intersection(&b).count() as f64 / a.union(&b).count() as f64
    }

    fn duplicates(texts: &[String], memory: usize) -> Vec<Duplicate> {
        let dir = tempfile::tempdir().unwrap();
        let mut near = Near::new(dir.path(), 0.8, memory);
        for (at, text) in texts.iter().enumerate() {
            if let Some(signature) = Signature::of(text) {
                near.add(at as u64, &signature).unwrap();
            }
        }
        near.clusters().unwrap().duplicates(Some).unwrap()
    }

    #[test]
    fn the_estimate_is_near_the_similarity() {
        let base = text(0, 3000, |_| false);
        for every in [7, 20, 50, 200] {
            let other = text(9, 3000, |n| n % every == 0);
            let (exact, estimate) = (
                jaccard(&base, &other),
                Signature::of(&base).unwrap().similarity(&Signature::of(&other).unwrap()),
            );
            assert!((exact - estimate).abs() < 0.15, "{exact} and {estimate}");
        }
        assert!(Signature::of("only four words here").is_none());
    }

    #[test]
    fn near_copies_are_found_and_others_are_not() {
        // 200 families far apart: a text, one at about 0.95, one at about 0.5.
        let mut texts = Vec::new();
        for family in 0..200u64 {
            let base = |n: u64| n * 1_000_003 + family;
            let one = |changed: u64| {
                let word = |n: u64| {
                    let other = changed > 0 && n.is_multiple_of(changed);
                    format!("w{:x}", mix(base(n) + if other { changed << 40 } else { 0 }))
                };
                (0..400).map(word).collect::<Vec<_>>().join(" ")
            };
            texts.extend([one(0), one(200), one(14)]);
        }
        let (near, far) = (jaccard(&texts[0], &texts[1]), jaccard(&texts[0], &texts[2]));
        assert!(near > 0.93 && far < 0.6, "{near} {far}");
        let found = duplicates(&texts, 1 << 24);
        let recalled = found.iter().filter(|d| d.document % 3 == 1 && d.of == d.document - 1).count();
        assert!(recalled >= 199, "{recalled} of 200");
        assert_eq!(found.len(), recalled, "nothing else");
    }

    #[test]
    fn what_does_not_fit_into_memory_is_answered_alike() {
        let texts: Vec<String> =
            (0..600u64).map(|n| text(n, 120, |word| word == n % 97 || n % 5 == 0)).collect();
        let found = duplicates(&texts, 1 << 26);
        assert!(found.len() > 300);
        // 1,024 bands at a time, and no signature in memory.
        assert_eq!(duplicates(&texts, 0), found);
    }

    #[test]
    fn a_chain_of_likes_keeps_what_is_unlike_the_kept() {
        // Each is like the next, the first is not like the last.
        let texts: Vec<String> = (0..8u64).map(|n| text(7, 1000, |word| word < n * 60)).collect();
        assert!(jaccard(&texts[0], &texts[1]) > 0.85 && jaccard(&texts[0], &texts[7]) < 0.5);
        let found = duplicates(&texts, 1 << 24);
        let dropped: HashSet<u64> = found.iter().map(|d| d.document).collect();
        assert!(!dropped.is_empty() && !dropped.contains(&0) && dropped.len() < 7, "{found:?}");
        for duplicate in &found {
            assert!(!dropped.contains(&duplicate.of) && duplicate.similarity >= 0.8);
        }
    }

    #[test]
    fn the_order_of_documents_does_not_matter() {
        let dir = tempfile::tempdir().unwrap();
        let texts: Vec<String> = (0..300u64).map(|n| text(n, 90, |word| word % 60 == n % 60)).collect();
        let answer = |order: &[u64]| -> Vec<Duplicate> {
            let mut near = Near::new(dir.path(), 0.8, 1 << 24);
            for &at in order {
                near.add(at, &Signature::of(&texts[at as usize]).unwrap()).unwrap();
            }
            near.clusters().unwrap().duplicates(Some).unwrap()
        };
        let forwards: Vec<u64> = (0..300).collect();
        let backwards: Vec<u64> = (0..300).rev().collect();
        let documents = |d: Vec<Duplicate>| d.into_iter().map(|d| d.document).collect::<Vec<_>>();
        assert_eq!(documents(answer(&forwards)), documents(answer(&backwards)));
    }

    proptest! {
        #[test]
        fn groups_are_those_of_a_map(pairs in prop::collection::vec((0u8..40, any::<u64>()), 0..3000)) {
            let dir = tempfile::tempdir().unwrap();
            let mut sorter = Sorter::new(dir.path(), 0);
            let mut expected: BTreeMap<u8, Vec<u64>> = BTreeMap::new();
            for &(key, document) in &pairs {
                sorter.push(key.into(), document).unwrap();
                expected.entry(key).or_default().push(document);
            }
            let mut found = Vec::new();
            sorter.groups(|members| { found.push(members.to_vec()); Ok(()) }).unwrap();
            expected.values_mut().for_each(|m| m.sort_unstable());
            prop_assert_eq!(found, expected.into_values().filter(|m| m.len() > 1).collect::<Vec<_>>());
        }

        #[test]
        fn any_text_has_a_signature_like_its_own(text in any::<String>()) {
            if let Some(signature) = Signature::of(&text) {
                prop_assert_eq!(signature.similarity(&signature), 1.0);
                prop_assert_eq!(Signature::from_bytes(&signature.to_bytes()), signature);
            }
        }
    }
}
