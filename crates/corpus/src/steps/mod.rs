//! The steps of a corpus' making, and the store of what they have finished.
//!
//! In flow files ([`ingest()`]), then from step to step [`Part`]s, files of documents. A step on documents is a [`Block`]: a
//! function of one Arrow record batch, run on many at once by [`map`]. Each step counts what it did; the counts of one step's
//! pieces, merged in order, are the step's.

mod blocks;
mod dedup;
mod ingest;
mod split;
mod store;

pub use blocks::{Clean, Decontaminate, Filter, FilterSettings, Score};
pub use dedup::{DedupSettings, dedup};
pub use ingest::{REFUSED, Source, ingest};
pub use split::{HELD_OUT, SplitSettings, TRAIN, split};
pub use store::{Done, Key, Part, StepError, Store, Work};
pub(crate) use store::{WRITING, clear};

use crate::{report::Counts, shards::ShardReader};
use arrow_array::RecordBatch;
use rayon::prelude::*;
use serde_json::Value;

/// What a run tells as it goes on.
#[derive(Clone, Copy, Debug)]
pub enum Event<'e> {
    /// A step begins that will look at so many bytes of text or of files.
    Begin {
        /// The step.
        step: &'e str,
        /// Bytes.
        bytes: u64,
    },
    /// So many more bytes are done.
    Progress {
        /// Bytes.
        bytes: u64,
    },
    /// The step is done.
    End {
        /// The step.
        step: &'e str,
        /// Its counts.
        counts: &'e Counts,
        /// Pieces of work that were there from an earlier run.
        again: usize,
        /// Pieces of work.
        tasks: usize,
    },
}

/// A run's way to talk to whoever started it.
#[derive(Clone, Copy)]
pub struct Watch<'w> {
    /// Hears what goes on, from several threads.
    pub event: &'w (dyn Fn(Event<'_>) + Sync),
    /// Says whether to stop; asked between batches.
    pub stop: &'w (dyn Fn() -> bool + Sync),
}

impl Watch<'_> {
    /// Nobody hears, nobody stops it.
    pub const SILENT: Watch<'static> = Watch { event: &|_| {}, stop: &|| false };

    /// Goes on, unless asked to stop.
    ///
    /// # Errors
    /// [`StepError::Stopped`].
    pub fn go_on(&self) -> Result<(), StepError> {
        if (self.stop)() { Err(StepError::Stopped) } else { Ok(()) }
    }
}

/// What a run works with.
#[derive(Clone, Copy)]
pub struct Run<'r> {
    /// Finished work.
    pub store: &'r Store,
    /// Who is told.
    pub watch: Watch<'r>,
}

/// Where a batch stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the part.
    pub part: usize,
    /// Rows of the part before the batch.
    pub row: usize,
}

/// A step on documents: a batch in, the documents that go on out, perhaps changed.
pub trait Block: Sync {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Version of its code: raised when its results change.
    fn version(&self) -> u32;

    /// Its settings, as they are recorded.
    fn settings(&self) -> Value;

    /// What else its work on a part depends on; settings and the part's documents by default.
    fn depends(&self, _part: usize) -> String {
        String::new()
    }

    /// Does its work. Every row is recorded in `counts` once, as kept or dropped.
    ///
    /// # Errors
    /// When rows are not documents, or new ones cannot be put together.
    fn run(&self, batch: &RecordBatch, place: Place, counts: &mut Counts) -> Result<RecordBatch, StepError>;
}

/// Runs a block over all parts, several at a time.
///
/// # Errors
/// When a part cannot be read or written, or the run is asked to stop.
pub fn map(run: Run<'_>, block: &dyn Block, parts: &[Part]) -> Result<(Vec<Part>, Counts), StepError> {
    let settings = block.settings();
    let bytes = parts.iter().map(|part| part.text_bytes).sum();
    (run.watch.event)(Event::Begin { step: block.name(), bytes });
    let one = |(at, part): (usize, &Part)| -> Result<Done, StepError> {
        run.watch.go_on()?;
        let inputs = [part.blake3.as_str(), part.label.as_str(), &block.depends(at)];
        let key = Key { step: block.name(), version: block.version(), settings: &settings, inputs: &inputs };
        let done = run.store.task(&key, |work| {
            let mut counts = Counts::default();
            let mut writer = work.writer()?;
            let mut place = Place { part: at, row: 0 };
            for batch in ShardReader::open(&part.path)? {
                run.watch.go_on()?;
                let batch = batch?;
                writer.write(&block.run(&batch, place, &mut counts)?)?;
                place.row += batch.num_rows();
            }
            work.add(writer, &part.label)?;
            Ok((counts, Value::Null))
        });
        (run.watch.event)(Event::Progress { bytes: part.text_bytes });
        done
    };
    let done: Vec<Done> = parts.par_iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Ok(gather(run, block.name(), done))
}

/// The parts and counts of finished pieces, in order.
fn gather(run: Run<'_>, step: &str, done: Vec<Done>) -> (Vec<Part>, Counts) {
    let (tasks, again) = (done.len(), done.iter().filter(|done| done.again).count());
    let (mut parts, mut counts) = (Vec::new(), Counts::default());
    for one in done {
        parts.extend(one.parts);
        counts.merge(&one.counts);
    }
    (run.watch.event)(Event::End { step, counts: &counts, again, tasks });
    (parts, counts)
}
