//! Sets documents aside that are not trained on.

use super::{Done, Event, Key, Part, Run, StepError, gather};
use crate::{
    document::{DocumentError, Rows},
    report::{Counts, entry},
    shards::ShardReader,
};
use arrow_array::BooleanArray;
use arrow_select::filter::filter_record_batch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

const VERSION: u32 = 1;
/// Label of what is trained on.
pub const TRAIN: &str = "train";
/// Label of what is not.
pub const HELD_OUT: &str = "heldout";

/// How much is set aside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitSettings {
    /// The share of documents, from 0 to below 1.
    pub heldout: f64,
    /// Another number sets others aside.
    pub seed: u64,
}

impl SplitSettings {
    /// Whether a document is set aside: a draw by its id and the seed alone, so that it stays where it is when others come or
    /// go.
    pub fn is_held_out(&self, id: &str) -> bool {
        let mut hasher = blake3::Hasher::new_derive_key("blackletter 2026-11-23 held-out draw v1");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(id.as_bytes());
        let drawn = hasher.finalize().as_bytes().iter().take(8).fold(0u64, |n, &b| n << 8 | u64::from(b));
        // 53 bits: exact as a float.
        ((drawn >> 11) as f64) < self.heldout * (1u64 << 53) as f64
    }
}

/// Labels all documents as [`TRAIN`] or [`HELD_OUT`].
///
/// # Errors
/// When a part cannot be read or written, or the run is asked to stop.
pub fn split(
    run: Run<'_>,
    settings: &SplitSettings,
    parts: &[Part],
) -> Result<(Vec<Part>, Counts), StepError> {
    let recorded = json!(settings);
    (run.watch.event)(Event::Begin { step: "split", bytes: parts.iter().map(|part| part.text_bytes).sum() });
    let one = |part: &Part| -> Result<Done, StepError> {
        run.watch.go_on()?;
        let inputs = [part.blake3.as_str()];
        let key = Key { step: "split", version: VERSION, settings: &recorded, inputs: &inputs };
        let done = run.store.task(&key, |work| {
            let mut counts = Counts::default();
            let mut writers = [work.writer()?, work.writer()?];
            for batch in ShardReader::open(&part.path)? {
                run.watch.go_on()?;
                let batch = batch?;
                let rows = Rows::of(&batch)?;
                let mut held = Vec::with_capacity(rows.len());
                for row in 0..rows.len() {
                    let (out, bytes) = (settings.is_held_out(rows.id(row)), rows.text(row).len());
                    counts.keep(rows.dataset(row), rows.license(row), bytes, rows.text(row));
                    entry(&mut counts.parts, if out { HELD_OUT } else { TRAIN }).add(bytes as u64);
                    held.push(out);
                }
                for (writer, out) in writers.iter_mut().zip([false, true]) {
                    let rows: BooleanArray = held.iter().map(|&held| Some(held == out)).collect();
                    writer.write(&filter_record_batch(&batch, &rows).map_err(DocumentError::from)?)?;
                }
            }
            for (writer, label) in writers.into_iter().zip([TRAIN, HELD_OUT]) {
                work.add(writer, label)?;
            }
            Ok((counts, Value::Null))
        });
        (run.watch.event)(Event::Progress { bytes: part.text_bytes });
        done
    };
    let done: Vec<Done> = parts.par_iter().map(one).collect::<Result<_, _>>()?;
    Ok(gather(run, "split", done))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_seed_and_id_and_takes_its_share() {
        let settings = |heldout, seed| SplitSettings { heldout, seed };
        let drawn = |settings: &SplitSettings| -> Vec<usize> {
            (0..10_000).filter(|n| settings.is_held_out(&format!("d{n}"))).collect()
        };
        let tenth = drawn(&settings(0.1, 1));
        assert!((900..1100).contains(&tenth.len()), "{}", tenth.len());
        assert_eq!(tenth, drawn(&settings(0.1, 1)));
        assert_ne!(tenth, drawn(&settings(0.1, 2)));
        // A smaller share is part of a larger one.
        assert!(drawn(&settings(0.05, 1)).iter().all(|n| tenth.contains(n)));
        assert!(drawn(&settings(0.0, 1)).is_empty());
    }
}
