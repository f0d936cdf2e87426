//! Rows of the stream as micro-batches, made on a thread of their own while the step before runs.

use crate::{error::TrainError, state::Place};
use blackletter_dataset::{Kind, Row, RowStream};
use blackletter_model::decoder::Batch;
use std::{
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

/// Steps that are made ahead.
const AHEAD: usize = 1;

/// What one step learns from.
pub struct StepData {
    /// The micro-batches; one without any target is left out.
    pub batches: Vec<Batch>,
    /// Tokens of a document: kind, number of the document, number of its dataset, tokens.
    pub parts: Vec<(Kind, u32, u16, u32)>,
    /// Targets of all micro-batches.
    pub targets: u64,
    /// Where the next step begins.
    pub next: Place,
}

/// How rows are put together.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows of a step.
    pub rows: usize,
    /// Rows of a micro-batch.
    pub micro_batch_rows: usize,
    /// Tokens of the model's vocabulary.
    pub vocabulary: usize,
}

/// The data of the step that begins at `place`: a function of its arguments alone.
///
/// # Errors
/// When an epoch has no rows, or a row does not fit the model.
pub fn step_data(stream: &RowStream, place: Place, shape: Shape) -> Result<StepData, TrainError> {
    let mut rows = Vec::with_capacity(shape.rows);
    let mut next = place;
    let mut empty = 0;
    while rows.len() < shape.rows {
        if next.row >= stream.rows(next.epoch) {
            next = Place { epoch: next.epoch + 1, row: 0 };
            empty += 1;
            if empty > 2 && rows.is_empty() {
                return Err(TrainError::Mismatch("the token store has no rows to train on".into()));
            }
            continue;
        }
        rows.push(stream.row(next.epoch, next.row));
        next.row += 1;
    }
    let parts = rows
        .iter()
        .flat_map(|row| row.parts.iter().map(|p| (row.kind, p.document, p.dataset, p.tokens)))
        .collect();
    let targets = rows.iter().map(|row| row.targets() as u64).sum();
    let micro = shape.micro_batch_rows.max(1);
    let batches = rows
        .chunks(micro)
        .filter(|rows| rows.iter().any(|row| row.targets() > 0))
        .map(|rows| batch(rows, shape.vocabulary))
        .collect::<Result<_, _>>()?;
    Ok(StepData { batches, parts, targets, next })
}

fn batch(rows: &[Row], vocabulary: usize) -> Result<Batch, TrainError> {
    let len = rows.first().map_or(0, |row| row.ids.len());
    let join = |list: fn(&Row) -> &Vec<u32>| rows.iter().flat_map(|row| list(row).iter().copied()).collect();
    let targets = rows.iter().flat_map(|row| row.targets.iter().copied()).collect();
    Ok(Batch::new(len, join(|r| &r.ids), join(|r| &r.positions), join(|r| &r.segments), targets, vocabulary)?)
}

/// Steps in their order.
pub struct Feed {
    steps: Receiver<Result<StepData, TrainError>>,
}

impl Feed {
    /// Starts to make steps from `place` on.
    pub fn start(stream: Arc<RowStream>, place: Place, shape: Shape) -> Self {
        let (sender, steps) = sync_channel(AHEAD);
        // It ends when nobody receives any more.
        thread::spawn(move || send_steps(&stream, place, shape, &sender));
        Self { steps }
    }

    /// The next step.
    ///
    /// # Errors
    /// As [`step_data`].
    pub fn next(&self) -> Result<StepData, TrainError> {
        self.steps
            .recv()
            .unwrap_or_else(|_| Err(TrainError::Mismatch("the thread that makes batches has ended".into())))
    }
}

fn send_steps(
    stream: &RowStream,
    mut place: Place,
    shape: Shape,
    sender: &SyncSender<Result<StepData, TrainError>>,
) {
    loop {
        let data = step_data(stream, place, shape);
        let next = data.as_ref().ok().map(|data| data.next);
        if sender.send(data).is_err() {
            return;
        }
        match next {
            Some(next) => place = next,
            None => return,
        }
    }
}
