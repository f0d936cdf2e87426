//! The stream of training rows: row *n* of epoch *e* is a function of the settings, *e* and *n* alone.
//!
//! An epoch is planned once, when its first row is asked for: documents are cut, segments packed, rows put in an order. The
//! plan holds about 20 bytes a segment; rows are made from it and the store when they are asked for, by any number of threads.

use crate::{
    breaks::Breaks,
    draw::{Draw, Purpose},
    error::DatasetError,
    pack::{Lists, longest_first, pack},
    row::{IGNORED, Kind, Padding, Row, RowPart, StreamConfig},
    segment::{Lengths, SMALLEST_CONTEXT, Segment, cut},
    store::TokenStore,
    table::Table,
};
use blackletter_tokenizer::template::Special;
use rayon::prelude::*;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Marks rows of examples in a plan's order.
const EXAMPLES: u32 = 1 << 31;
/// Plans that are kept.
const PLANS: usize = 2;
/// Documents that one task cuts.
const CHUNK: usize = 256;

/// Rows to train on.
pub struct RowStream {
    store: TokenStore,
    config: StreamConfig,
    special: Special,
    lengths: Lengths,
    breaks: Breaks,
    /// How often each dataset's documents are shown.
    weights: Vec<f64>,
    /// Examples that fit the context.
    examples: Vec<u32>,
    too_long: u64,
    plans: Mutex<VecDeque<(u64, Arc<Plan>)>>,
}

/// What the rows of an epoch are.
struct Plan {
    segments: Vec<Segment>,
    /// Rows of segments.
    documents: Lists,
    /// Rows of examples.
    examples: Lists,
    /// For each row, which of the above it is.
    order: Vec<u32>,
}

impl RowStream {
    /// The rows of a store's training part.
    ///
    /// # Errors
    /// When a setting cannot be followed, with what is allowed.
    pub fn new(store: &TokenStore, config: &StreamConfig) -> Result<Self, DatasetError> {
        check(config)?;
        let weights = weights(store, config)?;
        let fits = |number: &u32| {
            store
                .sft()
                .get(*number as usize)
                .is_some_and(|entry| (1..=config.context).contains(&entry.tokens.len()))
        };
        let all = store.sft().len() as u32;
        let examples: Vec<u32> =
            if config.sft_weight > 0.0 { (0..all).filter(fits).collect() } else { Vec::new() };
        let too_long = if config.sft_weight > 0.0 { u64::from(all) - examples.len() as u64 } else { 0 };
        if config.sft_weight > 0.0 && examples.is_empty() {
            let allowed = match all {
                0 => "this store has no supervised examples: 0, or build it with --sft".to_owned(),
                all => format!(
                    "none of the store's {all} examples fits {} tokens: 0, or a longer context",
                    config.context
                ),
            };
            return Err(DatasetError::config("sft_weight", config.sft_weight, allowed));
        }
        let stream = Self {
            special: store.manifest().tokenizer.special,
            lengths: Lengths::of(config),
            breaks: Breaks::new(store.tokenizer()),
            store: store.clone(),
            config: config.clone(),
            weights,
            examples,
            too_long,
            plans: Mutex::default(),
        };
        stream.check_size()?;
        Ok(stream)
    }

    /// The settings.
    pub fn config(&self) -> &StreamConfig {
        &self.config
    }

    /// The store.
    pub fn store(&self) -> &TokenStore {
        &self.store
    }

    /// Examples that are left out because they are longer than the context.
    pub fn examples_too_long(&self) -> u64 {
        self.too_long
    }

    /// Rows of an epoch.
    pub fn rows(&self, epoch: u64) -> u64 {
        self.plan(epoch).order.len() as u64
    }

    /// Row `n` of an epoch, `n` below [`Self::rows`]; a greater `n` gives a row of padding.
    pub fn row(&self, epoch: u64, n: u64) -> Row {
        let plan = self.plan(epoch);
        let place = usize::try_from(n).ok().and_then(|n| plan.order.get(n).copied());
        let kind = if place.is_some_and(|place| place & EXAMPLES != 0) { Kind::Sft } else { Kind::Ntp };
        let mut filling = Filling::new(self, kind);
        let Some(place) = place else { return filling.row };
        let list = (place & !EXAMPLES) as usize;
        let items = if kind == Kind::Sft { plan.examples.get(list) } else { plan.documents.get(list) };
        if self.config.padding == Padding::Random {
            let used: usize = items.iter().map(|&item| self.length(&plan, kind, item)).sum();
            let room = self.config.context.saturating_sub(used) as u64;
            filling.at = Draw::new(self.config.seed, Purpose::Padding, epoch).below(n, room + 1) as usize;
        }
        for &item in items {
            match kind {
                Kind::Ntp => {
                    if let Some(&segment) = plan.segments.get(item as usize) {
                        filling.segment(segment);
                    }
                }
                Kind::Sft => filling.example(item),
            }
        }
        filling.row
    }

    fn length(&self, plan: &Plan, kind: Kind, item: u32) -> usize {
        match kind {
            Kind::Ntp => plan.segments.get(item as usize).map_or(0, |segment| segment.len as usize),
            Kind::Sft => self.example_length(item),
        }
    }

    fn example_length(&self, number: u32) -> usize {
        self.store.sft().get(number as usize).map_or(0, |entry| entry.tokens.len())
    }

    /// Numbers of rows and segments have 31 bits.
    fn check_size(&self) -> Result<(), DatasetError> {
        let documents = self.store.train();
        let most: f64 = documents
            .iter()
            .map(|entry| {
                let weight = self.weights.get(usize::from(entry.dataset)).copied().unwrap_or(1.0);
                weight.ceil() * (1.0 + entry.tokens.len() as f64 / self.lengths.least() as f64)
            })
            .sum();
        if most == 0.0 && self.config.sft_weight < 1.0 {
            let allowed =
                "no document is left to train on: give a dataset that has documents a weight above 0";
            return Err(DatasetError::config("weights", format!("{:?}", self.config.weights), allowed));
        }
        // At weight 1 no document is cut, and the rows are those of the examples.
        let rows = if self.config.sft_weight < 1.0 { most / (1.0 - self.config.sft_weight) } else { 0.0 };
        if rows >= f64::from(EXAMPLES) {
            let limit = u64::from(EXAMPLES);
            return Err(DatasetError::TooMany { what: "segments of an epoch", found: rows as u64, limit });
        }
        Ok(())
    }

    fn plan(&self, epoch: u64) -> Arc<Plan> {
        // Held while planning: whoever asks for the same epoch waits for it in place of planning it again.
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, plan)) = plans.iter().find(|(of, _)| *of == epoch) {
            return plan.clone();
        }
        if plans.len() >= PLANS {
            plans.pop_front();
        }
        let plan = Arc::new(self.make_plan(epoch));
        plans.push_back((epoch, plan.clone()));
        plan
    }

    fn draw(&self, purpose: Purpose, epoch: u64) -> Draw {
        Draw::new(self.config.seed, purpose, epoch)
    }

    fn make_plan(&self, epoch: u64) -> Plan {
        let pure = self.config.sft_weight >= 1.0;
        let segments = if pure { Vec::new() } else { self.segments(epoch) };
        let mut order: Vec<u32> = (0..segments.len() as u32).collect();
        let draw = self.draw(Purpose::Order, epoch);
        let documents = match self.config.padding {
            Padding::Random => {
                draw.shuffle(&mut order);
                Lists::single(order)
            }
            Padding::Pack => {
                draw.shuffle(&mut order);
                let length =
                    |item: u32| segments.get(item as usize).map_or(0, |segment| segment.len as usize);
                pack(&longest_first(&order, length, self.config.context), length, self.config.context)
            }
        };
        let mut rows: Vec<u32> = (0..documents.len() as u32).collect();
        draw.of(1).shuffle(&mut rows);
        let (order, examples) = self.mix(epoch, &rows);
        Plan { segments, documents, examples, order }
    }

    /// All segments of an epoch, by document.
    fn segments(&self, epoch: u64) -> Vec<Segment> {
        let documents = self.store.train();
        let (lengths, times) = (self.draw(Purpose::Length, epoch), self.draw(Purpose::Weight, epoch));
        let chunks: Vec<Vec<Segment>> = (0..documents.len())
            .step_by(CHUNK)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|from| {
                let mut segments = Vec::new();
                for number in from..documents.len().min(from + CHUNK) {
                    let Some(entry) = documents.get(number) else { continue };
                    let weight = self.weights.get(usize::from(entry.dataset)).copied().unwrap_or(1.0);
                    let more = times.unit(number as u64) < weight.fract();
                    for time in 0..weight as u64 + u64::from(more) {
                        let draw = lengths.of(number as u64).of(time);
                        cut(number as u32, entry.tokens, &self.breaks, self.lengths, draw, &mut segments);
                    }
                }
                segments
            })
            .collect();
        chunks.concat()
    }

    /// Rows of examples among those of documents: each row is drawn, until all rows of documents have their place.
    fn mix(&self, epoch: u64, rows: &[u32]) -> (Vec<u32>, Lists) {
        let weight = self.config.sft_weight;
        if weight <= 0.0 {
            return (rows.to_vec(), Lists::default());
        }
        if weight >= 1.0 {
            let examples = self.examples(epoch, 0);
            return ((0..examples.len() as u32).map(|row| row | EXAMPLES).collect(), examples);
        }
        let draw = self.draw(Purpose::Kind, epoch);
        let (mut order, mut of_examples) = (Vec::with_capacity(rows.len()), 0u32);
        let mut waiting = rows.iter();
        while waiting.len() > 0 {
            if draw.unit(order.len() as u64) < weight {
                order.push(of_examples | EXAMPLES);
                of_examples += 1;
            } else {
                order.extend(waiting.next());
            }
        }
        let mut examples = Lists::default();
        for pass in 0.. {
            if examples.len() >= of_examples as usize {
                break;
            }
            examples.extend(&self.examples(epoch, pass));
        }
        (order, examples)
    }

    /// Once through the examples, in an order of its own.
    fn examples(&self, epoch: u64, pass: u64) -> Lists {
        let mut order = self.examples.clone();
        let draw = self.draw(Purpose::Examples, epoch).of(pass);
        draw.shuffle(&mut order);
        match self.config.padding {
            Padding::Random => Lists::single(order),
            Padding::Pack => {
                let packed = pack(&order, |item| self.example_length(item), self.config.context);
                let mut rows: Vec<u32> = (0..packed.len() as u32).collect();
                self.draw(Purpose::ExampleOrder, epoch).of(pass).shuffle(&mut rows);
                packed.reordered(&rows)
            }
        }
    }
}

/// A row that is being filled.
struct Filling<'s> {
    stream: &'s RowStream,
    row: Row,
    /// Where the next part begins.
    at: usize,
    scratch: Vec<u32>,
}

impl<'s> Filling<'s> {
    fn new(stream: &'s RowStream, kind: Kind) -> Self {
        let context = stream.config.context;
        let positions = match stream.config.padding {
            Padding::Random => (0..context as u32).collect(),
            Padding::Pack => vec![0; context],
        };
        let row = Row {
            ids: vec![stream.special.pad; context],
            positions,
            segments: vec![0; context],
            targets: vec![IGNORED; context],
            kind,
            parts: Vec::new(),
        };
        Self { stream, row, at: 0, scratch: Vec::new() }
    }

    /// Puts `scratch` into the row; its first `len` are seen, and token `i` predicts the next where `learned(i)`.
    fn part(&mut self, table: &Table, document: u32, len: usize, learned: impl Fn(usize) -> bool) {
        let number = self.row.parts.len() as u32 + 1;
        let packed = self.stream.config.padding == Padding::Pack;
        for (place, &id) in self.scratch.iter().take(len).enumerate() {
            let at = self.at + place;
            let row = &mut self.row;
            let (Some(to), Some(segment), Some(target)) =
                (row.ids.get_mut(at), row.segments.get_mut(at), row.targets.get_mut(at))
            else {
                break;
            };
            (*to, *segment) = (id, number);
            if let Some(&next) = self.scratch.get(place + 1).filter(|_| learned(place)) {
                *target = next.into();
            }
            if let Some(position) = row.positions.get_mut(at).filter(|_| packed) {
                *position = place as u32;
            }
        }
        let dataset = table.get(document as usize).map_or(0, |entry| entry.dataset);
        self.row.parts.push(RowPart { document, dataset, tokens: len as u32 });
        self.at += len;
    }

    /// Every token of a segment predicts the next of its document, the last one too, where the document goes on.
    fn segment(&mut self, segment: Segment) {
        let stream = self.stream;
        let Some(entry) = stream.store.train().get(segment.document as usize) else { return };
        self.scratch.clear();
        let (start, len, end) = (segment.start as usize, segment.len as usize, entry.tokens.len() + 2);
        if start == 0 {
            self.scratch.push(stream.special.start);
        }
        entry.tokens.extend(start.saturating_sub(1)..start + len, &mut self.scratch);
        if start + len + 1 >= end {
            self.scratch.push(stream.special.end);
        }
        self.part(stream.store.train(), segment.document, len, |_| true);
    }

    fn example(&mut self, number: u32) {
        let stream = self.stream;
        let Some(entry) = stream.store.sft().get(number as usize) else { return };
        self.scratch.clear();
        entry.tokens.extend(0..entry.tokens.len(), &mut self.scratch);
        let (answers, _) = entry.answers.as_chunks::<2>();
        self.part(stream.store.sft(), number, entry.tokens.len(), |place| {
            answers.iter().any(|&[from, to]| (from as usize..to as usize).contains(&(place + 1)))
        });
    }
}

fn check(config: &StreamConfig) -> Result<(), DatasetError> {
    let segments = config.segments;
    if config.context < SMALLEST_CONTEXT || config.context > 1 << 24 {
        let allowed = format!("a row has from {SMALLEST_CONTEXT} to {} tokens", 1 << 24);
        return Err(DatasetError::config("context", config.context, allowed));
    }
    let range = |key: &str, value: f64, least: f64, most: f64| match (least..=most).contains(&value) {
        true => Ok(()),
        false => Err(DatasetError::config(key, value, format!("it may be from {least} to {most}"))),
    };
    range("sft_weight", config.sft_weight, 0.0, 1.0)?;
    range("segments.longest", segments.longest, 0.01, 1.0)?;
    range("segments.shortest", segments.shortest, 0.01, segments.longest)?;
    range("segments.window", segments.window, 0.0, 0.9)
}

/// A weight for each of the store's datasets.
fn weights(store: &TokenStore, config: &StreamConfig) -> Result<Vec<f64>, DatasetError> {
    let names = &store.manifest().datasets;
    for (name, &weight) in &config.weights {
        let key = format!("weights.{name}");
        if !names.contains(name) {
            let near = names.iter().map(|known| (strsim::damerau_levenshtein(name, known), known)).min();
            let near = near.map(|(_, known)| format!("; did you mean {known}?")).unwrap_or_default();
            let allowed = format!("the store has no such dataset, but {}{near}", names.join(", "));
            return Err(DatasetError::config(&key, weight, allowed));
        }
        if !(0.0..=1000.0).contains(&weight) {
            return Err(DatasetError::config(&key, weight, "it may be from 0 to 1000"));
        }
    }
    Ok(names.iter().map(|name| config.weights.get(name).copied().unwrap_or(1.0)).collect())
}
