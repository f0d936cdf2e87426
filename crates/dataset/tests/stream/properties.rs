//! What is true of every stream, whatever the documents and settings.
#![allow(clippy::unwrap_used)]

use crate::support;
use blackletter_dataset::{IGNORED, Kind, Padding, Row, RowStream, Segments, StreamConfig, TokenStore};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// Texts with breaks of all kinds, and without any.
fn text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "the law",
        " ",
        "\n\n",
        "\n\n## Heading\n\n",
        ". The",
        "§ 5",
        "\n",
        "landlord and tenant",
        "ÄÖ€",
        "    ",
        "x",
    ]);
    prop::collection::vec(piece, 0..120).prop_map(|pieces| pieces.concat())
}

fn config() -> impl Strategy<Value = StreamConfig> {
    let padding = prop::sample::select(vec![Padding::Random, Padding::Pack]);
    (8usize..90, padding, any::<u64>(), 0.05f64..1.0, 0.0f64..0.6, prop::sample::select(vec![0.0, 0.3, 0.8]))
        .prop_map(|(context, padding, seed, shortest, window, sft_weight)| StreamConfig {
            context,
            padding,
            seed,
            sft_weight,
            weights: BTreeMap::new(),
            segments: Segments { shortest, longest: 1.0, window },
        })
}

struct Case {
    _folder: tempfile::TempDir,
    store: TokenStore,
    stream: RowStream,
}

fn case(texts: &[String], config: &StreamConfig) -> Case {
    let folder = tempfile::tempdir().unwrap();
    let documents: Vec<_> = (0..)
        .zip(texts)
        .map(|(n, text)| support::document(&format!("{}-{n}", ["usc", "dc", "forms"][n % 3]), text))
        .chain([support::document("usc-last", "The last one has text.")])
        .collect();
    // The last example fits no context of these tests.
    let store = support::store(folder.path(), &documents, &[], &support::examples([1, 3, 2, 200]));
    let stream =
        RowStream::new(&store, &StreamConfig { context: config.context.max(30), ..config.clone() }).unwrap();
    Case { _folder: folder, store, stream }
}

fn rows(stream: &RowStream, epoch: u64) -> Vec<Row> {
    (0..stream.rows(epoch)).map(|n| stream.row(epoch, n)).collect()
}

/// A document's sequence.
fn sequence(store: &TokenStore, document: u32) -> Vec<u32> {
    let special = store.manifest().tokenizer.special;
    let tokens = store.train().get(document as usize).unwrap().tokens.to_vec();
    [vec![special.start], tokens, vec![special.end]].concat()
}

/// The parts of a row: where each begins, and its ids.
fn parts(row: &Row) -> Vec<(usize, Vec<u32>)> {
    (1..=row.parts.len() as u32)
        .map(|number| {
            let at: Vec<usize> = (0..row.ids.len()).filter(|&i| row.segments[i] == number).collect();
            assert!(at.windows(2).all(|w| w[1] == w[0] + 1), "a part is in one piece");
            (at[0], at.iter().map(|&i| row.ids[i]).collect())
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_token_of_every_document_is_seen_once_an_epoch_and_no_segment_crosses_documents(
        texts in prop::collection::vec(text(), 0..7), config in config(), epoch in 0u64..3,
    ) {
        let case = case(&texts, &config);
        let special = case.store.manifest().tokenizer.special;
        // For each document its segments, wherever they stood.
        let mut found: BTreeMap<u32, Vec<Vec<u32>>> = BTreeMap::new();
        let mut predicted: BTreeMap<u32, usize> = BTreeMap::new();
        for row in rows(&case.stream, epoch).into_iter().filter(|row| row.kind == Kind::Ntp) {
            for ((at, ids), part) in parts(&row).into_iter().zip(&row.parts) {
                prop_assert_eq!(ids.len(), part.tokens as usize);
                let entry = case.store.train().get(part.document as usize).unwrap();
                prop_assert_eq!(part.dataset, entry.dataset);
                // Special tokens stand only at true ends.
                let sequence = sequence(&case.store, part.document);
                for (place, id) in ids.iter().enumerate() {
                    prop_assert_eq!(*id == special.start, place == 0 && ids[..] == sequence[..ids.len()]);
                    prop_assert!(*id != special.end || place + 1 == ids.len());
                }
                let targets = &row.targets[at..at + ids.len()];
                for (place, target) in targets.iter().enumerate() {
                    let next = ids.get(place + 1).map(|&id| i64::from(id));
                    prop_assert!(next.is_none_or(|next| next == *target));
                }
                *predicted.entry(part.document).or_default() += targets.iter().filter(|&&t| t != IGNORED).count();
                found.entry(part.document).or_default().push(ids);
            }
        }
        for (document, entry) in (0..).zip(case.store.train().iter()) {
            let mut left = found.remove(&document).unwrap_or_default();
            if entry.tokens.is_empty() {
                prop_assert!(left.is_empty());
                continue;
            }
            let whole = sequence(&case.store, document);
            // Each token but the first is predicted once.
            prop_assert_eq!(predicted.get(&document), Some(&(whole.len() - 1)));
            prop_assert_eq!(left.iter().map(Vec::len).sum::<usize>(), whole.len());
            prop_assert!(covers(&whole, &mut left), "document {document} is not what its segments make up");
        }
        prop_assert!(found.is_empty());
    }

    #[test]
    fn rows_hide_padding_and_parts_from_each_other(
        texts in prop::collection::vec(text(), 0..7), config in config(), epoch in 0u64..3,
    ) {
        let case = case(&texts, &config);
        let context = case.stream.config().context;
        let pad = case.store.manifest().tokenizer.special.pad;
        for row in rows(&case.stream, epoch) {
            prop_assert!([row.ids.len(), row.positions.len(), row.segments.len(), row.targets.len()] == [context; 4]);
            prop_assert!(row.targets() > 0);
            let used: usize = row.parts.iter().map(|part| part.tokens as usize).sum();
            prop_assert_eq!(row.segments.iter().filter(|&&s| s != 0).count(), used);
            for i in (0..context).filter(|&i| row.segments[i] == 0) {
                prop_assert!(row.ids[i] == pad && row.targets[i] == IGNORED);
            }
            match config.padding {
                // Positions count the padding on the left.
                Padding::Random => {
                    prop_assert_eq!(row.parts.len(), 1);
                    prop_assert!(row.positions.iter().enumerate().all(|(i, &p)| p as usize == i));
                }
                Padding::Pack => {
                    for (at, ids) in parts(&row) {
                        prop_assert!((0..ids.len()).all(|i| row.positions[at + i] as usize == i));
                    }
                    prop_assert_eq!(&row.segments[..used].iter().filter(|&&s| s == 0).count(), &0);
                }
            }
        }
    }

    #[test]
    fn the_stream_is_the_same_for_any_number_of_workers_and_after_any_resume(
        texts in prop::collection::vec(text(), 1..7), config in config(), epoch in 0u64..3,
    ) {
        let case = case(&texts, &config);
        let whole = rows(&case.stream, epoch);
        for workers in [1usize, 2, 4] {
            // Each worker opens the store for itself and makes every so manieth row, beginning with the last.
            let store = TokenStore::open(case.store.folder()).unwrap();
            let mut dealt: Vec<Option<Row>> = vec![None; whole.len()];
            let made: Vec<Vec<(usize, Row)>> = std::thread::scope(|scope| {
                let handles: Vec<_> = (0..workers)
                    .map(|worker| {
                        let (store, config) = (store.clone(), case.stream.config().clone());
                        let count = whole.len();
                        scope.spawn(move || {
                            let stream = RowStream::new(&store, &config).unwrap();
                            let mine = (worker..count).step_by(workers).rev();
                            mine.map(|n| (n, stream.row(epoch, n as u64))).collect::<Vec<_>>()
                        })
                    })
                    .collect();
                handles.into_iter().map(|handle| handle.join().unwrap()).collect()
            });
            made.into_iter().flatten().for_each(|(n, row)| dealt[n] = Some(row));
            prop_assert!(dealt.into_iter().map(Option::unwrap).eq(whole.iter().cloned()));
        }
        // Another epoch first, as after a resume in the middle.
        let resumed = RowStream::new(&case.store, case.stream.config()).unwrap();
        let _ = (resumed.row(epoch + 1, 0), resumed.row(epoch + 2, 0));
        let middle = whole.len() / 2;
        for (n, row) in (0..).zip(&whole).skip(middle) {
            prop_assert_eq!(&resumed.row(epoch, n), row);
        }
    }

    #[test]
    fn examples_teach_their_answers_alone(
        config in config(), epoch in 0u64..3,
    ) {
        let case = case(&[], &StreamConfig { sft_weight: 1.0, ..config.clone() });
        prop_assert_eq!(case.stream.examples_too_long(), 1);
        let special = case.store.manifest().tokenizer.special;
        let mut seen = Vec::new();
        for row in rows(&case.stream, epoch) {
            prop_assert_eq!(row.kind, Kind::Sft);
            for ((at, ids), part) in parts(&row).into_iter().zip(&row.parts) {
                seen.push(part.document);
                let sep = ids.iter().position(|&id| id == special.sep).unwrap();
                prop_assert_eq!((ids[0], ids[ids.len() - 1]), (special.start, special.end));
                for place in 0..ids.len() {
                    let expected = if place >= sep && place + 1 < ids.len() { i64::from(ids[place + 1]) } else { IGNORED };
                    prop_assert_eq!(row.targets[at + place], expected);
                }
            }
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, [0, 1, 2]);
    }
}

/// Whether the pieces in some order make up `whole`.
fn covers(whole: &[u32], pieces: &mut Vec<Vec<u32>>) -> bool {
    if whole.is_empty() {
        return pieces.is_empty();
    }
    for at in 0..pieces.len() {
        if whole.starts_with(&pieces[at]) {
            let piece = pieces.swap_remove(at);
            if covers(&whole[piece.len()..], pieces) {
                return true;
            }
            pieces.push(piece);
            let last = pieces.len() - 1;
            pieces.swap(at, last);
        }
    }
    false
}
