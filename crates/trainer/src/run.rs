//! A run from its beginning, or from a checkpoint, to its end.

use crate::{
    checkpoint, clip,
    config::RunConfig,
    data::{Feed, Shape, StepData},
    error::TrainError,
    evaluate::{Evaluation, Heldout},
    export::{self, CURVES, MODEL_CONFIG},
    keep_batch,
    ranks::Ranks,
    report::{self, Line, Metrics, StepRecord},
    samples::{self, Sample, Sampler},
    setup::{
        CHECKPOINTS, CONFIG, DATASET, LOCK, Plan, Progress, check_resumed, keep_base, prepare_directory,
        whole,
    },
    step::GlobalGradient,
};
use blackletter_dataset::{Kind, TokenStore};
use blackletter_kernels::{Isa, Pool, gemm_rate};
use blackletter_model::{
    MixtralConfig,
    decoder::{Decoder, LossOptions, Place, product_rate, use_threads},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Instant,
};

/// What a run tells while it goes on.
#[derive(Debug)]
pub enum Event<'a> {
    /// It begins, or goes on after `done` steps.
    Started {
        /// Where it is written.
        run: &'a Path,
        /// Numbers of the model.
        parameters: u64,
        /// Steps done.
        done: u64,
        /// All steps.
        steps: u64,
        /// Rows of an epoch.
        epoch_rows: u64,
        /// Multiply-add rate of the processor, operations per second, where the run is on it.
        rate: Option<f64>,
    },
    /// A step is done.
    Step(&'a StepRecord),
    /// Held-out documents have been scored; `average` tells whether with the averaged weights.
    Evaluated {
        /// The step.
        step: u64,
        /// Whether of the averaged weights.
        average: bool,
        /// The scores.
        scores: &'a Evaluation,
    },
    /// A text has been generated.
    Sampled {
        /// The step.
        step: u64,
        /// The text.
        sample: &'a Sample,
    },
    /// A checkpoint is whole.
    Saved(&'a Path),
    /// Something that the user should know.
    Note(&'a str),
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All steps are done.
    Finished,
    /// It was asked to stop, and has saved.
    Stopped,
}

type Observer<'o> = &'o mut dyn FnMut(Event<'_>);

/// Trains. `stop` is asked after every step; when it says so, the run saves and ends.
///
/// # Errors
/// When the configuration does not fit its data (before anything is written), the loss is no number any more, or the file
/// system refuses; the last whole checkpoint stays.
pub fn train(
    config: &RunConfig,
    resume: bool,
    stop: &dyn Fn() -> bool,
    observe: Observer<'_>,
) -> Result<Outcome, TrainError> {
    use_threads(config.threads);
    let ranks = Ranks::join();
    // The first rank makes the directory ready before others read from it, and it alone is heard.
    let mut silent = |_: Event<'_>| {};
    let observe: Observer<'_> = if ranks.is_first() { observe } else { &mut silent };
    if !ranks.is_first() {
        ranks.wait()?;
    }
    let mut run = Run::open(config, resume, ranks, observe)?;
    if ranks.is_first() {
        ranks.wait()?;
    }
    let steps = config.schedule.steps;
    while run.progress.state.step < steps {
        run.step(observe)?;
        let step = run.progress.state.step;
        let writes = ranks.is_first();
        let due = |every: u64| writes && every > 0 && (step.is_multiple_of(every) || step == steps);
        let heldout = if due(config.evaluation.every) { run.evaluate(observe)? } else { None };
        // One rank that is to stop stops all.
        let mut asked = [f64::from(u8::from(stop()))];
        ranks.sum(&mut asked)?;
        let stopping = step < steps && asked[0] > 0.0;
        if due(config.checkpoints.every) || (stopping && writes) {
            run.save(heldout, observe)?;
        }
        // After the checkpoint: a sample that cannot be written loses no steps.
        if due(config.samples.every) && !config.samples.prompts.is_empty() {
            run.sample(observe)?;
        }
        if stopping {
            run.draw(observe);
            return Ok(Outcome::Stopped);
        }
    }
    run.draw(observe);
    Ok(Outcome::Finished)
}

/// A run that goes on.
struct Run<'c> {
    config: &'c RunConfig,
    progress: Progress,
    store: TokenStore,
    feed: Feed,
    heldout: Heldout,
    sampler: Sampler,
    /// Of the first rank alone.
    metrics: Option<Metrics>,
    ranks: &'static Ranks,
    /// Held locked while the run goes on.
    _lock: Option<fs::File>,
    loss: LossOptions,
    /// Operations per token, and per second of the machine.
    flops: (f64, Option<f64>),
    last: Option<PathBuf>,
}

impl<'c> Run<'c> {
    fn open(
        config: &'c RunConfig,
        resume: bool,
        ranks: &'static Ranks,
        observe: Observer<'_>,
    ) -> Result<Self, TrainError> {
        let plan = Plan::new(config)?;
        if ranks.is_first() {
            prepare_directory(config, resume)?;
            if resume {
                for note in check_resumed(config, &plan.store)? {
                    observe(Event::Note(&note));
                }
            }
        }
        let mut progress = Progress::new(config, &plan)?;
        let Plan { store, stream, model, .. } = plan;
        let micro = config.data.micro_batch_rows;
        let (context, vocabulary) = (config.stream.context, model.vocab_size);
        let heldout = Heldout::new(&store, context, micro, config.evaluation.tokens, vocabulary)?;
        let folder = config.run.join(CHECKPOINTS);
        let lock = if ranks.is_first() { Some(lock(&config.run)?) } else { None };
        if ranks.is_first() {
            keep_base(config, resume)?;
        }
        let mut last = None;
        if resume {
            if ranks.is_first() {
                checkpoint::remove_unfinished(&folder);
                samples::remove_unfinished(&config.run);
            }
            let found = checkpoint::read_last(&folder, &mut |note| observe(Event::Note(&note)))?;
            match found {
                Some(stored) => {
                    last = Some(stored.path.clone());
                    progress.resume(stored)?;
                }
                None => observe(Event::Note("there is no checkpoint yet: the run begins anew")),
            }
        }
        let metrics = match ranks.is_first() {
            true => {
                write_inputs(config, &store, &model)?;
                Some(Metrics::open(&config.run, progress.state.step)?)
            }
            false => None,
        };
        let loss = LossOptions {
            recompute: config.recompute,
            compute: config.dtype.compute(),
            z_coefficient: config.loss.z_loss,
            ..LossOptions::of(&model)
        };
        let rate = machine_rate(config)?;
        observe(Event::Started {
            run: &config.run,
            parameters: model.total_parameters(),
            done: progress.state.step,
            steps: config.schedule.steps,
            epoch_rows: stream.rows(progress.state.place.epoch),
            rate,
        });
        let shape = Shape { rows: config.data.rows, micro_batch_rows: micro, vocabulary };
        let feed = Feed::start(Arc::new(stream), progress.state.place, shape);
        let sampler = Sampler::new(&config.samples, config.threads);
        let flops = (crate::bench::flops_per_token(&model), rate);
        Ok(Self {
            config,
            progress,
            store,
            feed,
            heldout,
            sampler,
            metrics,
            ranks,
            _lock: lock,
            loss,
            flops,
            last,
        })
    }

    /// One step: gradient, clipping, update, and the record of it.
    fn step(&mut self, observe: Observer<'_>) -> Result<(), TrainError> {
        let start = Instant::now();
        let data = self.feed.next()?;
        let config = self.config;
        let state = &mut self.progress.state;
        let step = state.step + 1;
        let gradient =
            GlobalGradient::of_ranks(&self.progress.decoder, &data.batches, &self.loss, self.ranks)?;
        let loss = gradient.loss;
        let gradients = self.progress.optimizer.trained(gradient.gradients);
        let norm = gradients.norm();
        for (what, value) in [("loss", loss.total), ("norm of the gradient", norm)] {
            if !value.is_finite() {
                let kept = match self.ranks.is_first() {
                    true => keep_batch::write(&config.run, step, &data.batches)?,
                    false => config.run.clone(),
                };
                return Err(TrainError::NotFinite { step, what, value, kept });
            }
        }
        let threshold = config.clip.threshold(&state.norms);
        config.clip.remember(&mut state.norms, norm);
        let rate = config.schedule.rate(step);
        let scale = clip::scale(norm, threshold);
        self.progress.optimizer.step(&mut self.progress.decoder, gradients, step, rate, scale);
        state.step = step;
        let before = state.tokens;
        self.count(&data);
        self.average();
        let state = &mut self.progress.state;
        let seconds = start.elapsed().as_secs_f64();
        state.seconds += seconds;
        let step_tokens = state.tokens - before;
        let positions = (config.data.rows * config.stream.context) as f64;
        let record = StepRecord {
            step,
            loss: loss.total,
            cross_entropy: loss.cross_entropy,
            aux_loss: loss.aux_loss,
            z_loss: loss.z_loss,
            rate,
            gradient_norm: norm,
            clip: threshold.is_finite().then_some(threshold),
            epoch: state.place.epoch,
            step_tokens,
            tokens: state.tokens,
            seconds,
            tokens_per_s: step_tokens as f64 / seconds,
            mfu: self.flops.1.map(|rate| self.flops.0 * positions / seconds / rate),
        };
        if let Some(metrics) = &mut self.metrics {
            metrics.write(&Line::Step(record))?;
        }
        observe(Event::Step(&record));
        Ok(())
    }

    /// Writes down what a step consumed.
    fn count(&mut self, data: &StepData) {
        let Progress { state, documents, .. } = &mut self.progress;
        for &(kind, document, dataset, tokens) in &data.parts {
            let table = match kind {
                Kind::Ntp => self.store.train(),
                Kind::Sft => self.store.sft(),
            };
            let Some(entry) = table.get(document as usize) else { continue };
            let (dataset, license) = (self.store.dataset(dataset), self.store.license(entry.license));
            state.consume(dataset, license, entry.kind, u64::from(tokens));
            if let (Kind::Ntp, Some(seen)) = (kind, documents.get_mut(document as usize)) {
                *seen = seen.saturating_add(tokens);
            }
        }
        state.targets += data.targets;
        state.place = data.next;
    }

    /// Moves the average towards the weights: by `1 - decay`, and more in the beginning, so that the first weights do not
    /// stay in it.
    fn average(&mut self) {
        let averaging = &self.config.averaging;
        let Progress { state, decoder, average, .. } = &mut self.progress;
        if average.is_empty() || !state.step.is_multiple_of(averaging.every) {
            return;
        }
        state.averaged += 1;
        let decay = averaging.decay.min(state.averaged as f64 / (state.averaged as f64 + 10.0));
        for (mean, parameter) in average.iter_mut().zip(decoder.parameters()) {
            let new = parameter.tensor.clone().inner();
            *mean = mean.clone().mul_scalar(decay) + new.mul_scalar(1.0 - decay);
        }
    }

    /// The decoder with the averaged weights.
    fn averaged(&self) -> Option<Decoder> {
        let average = &self.progress.average;
        if average.is_empty() {
            return None;
        }
        let mut decoder = self.progress.decoder.frozen();
        for (parameter, mean) in decoder.parameters_mut().into_iter().zip(average) {
            *parameter.tensor = mean.clone();
        }
        Some(decoder)
    }

    /// Scores the held-out documents; gives their loss, of the averaged weights where there are any.
    fn evaluate(&mut self, observe: Observer<'_>) -> Result<Option<f64>, TrainError> {
        if self.heldout.is_empty() {
            return Ok(None);
        }
        let step = self.progress.state.step;
        let mut last = None;
        let decoders = [(false, Some(self.progress.decoder.frozen())), (true, self.averaged())];
        for (average, decoder) in decoders {
            let Some(decoder) = decoder else { continue };
            let scores = self.heldout.score(&decoder, &self.loss);
            last = Some(scores.all.loss);
            observe(Event::Evaluated { step, average, scores: &scores });
            let of = if average { "average" } else { "weights" };
            if let Some(metrics) = &mut self.metrics {
                metrics.write(&Line::Evaluation { step, of: of.into(), scores })?;
            }
        }
        Ok(last)
    }

    fn sample(&mut self, observe: Observer<'_>) -> Result<(), TrainError> {
        let step = self.progress.state.step;
        let decoder = self.averaged().unwrap_or_else(|| self.progress.decoder.frozen());
        for sample in self.sampler.run(&self.config.run, step, &decoder)? {
            observe(Event::Sampled { step, sample: &sample });
        }
        Ok(())
    }

    fn save(&mut self, heldout: Option<f64>, observe: Observer<'_>) -> Result<(), TrainError> {
        let state = &mut self.progress.state;
        let step = state.step;
        // What is no number is never the best, and JSON has no form for it.
        let better = |loss: &f64| loss.is_finite() && state.best.is_none_or(|best| *loss < best.loss);
        if let Some(loss) = heldout.filter(better) {
            state.best = Some(crate::state::Best { step, loss });
        }
        let run = &self.config.run;
        if let Some(adapter) = self.progress.optimizer.adapter(&self.progress.decoder) {
            let base = &self.config.model.from;
            let folder = run.join("adapter");
            adapter.write(&folder, base)?;
            // What the adapter learned from goes with it.
            let to = folder.join(DATASET);
            fs::copy(run.join(DATASET), &to)
                .map_err(TrainError::file("copy the store's manifest to", &to))?;
        }
        let path = self.progress.save(run).map_err(|source| TrainError::Save {
            step,
            last: self.last.clone(),
            source: Box::new(source),
        })?;
        observe(Event::Saved(&path));
        let best = self.progress.state.best.map(|best| best.step);
        checkpoint::rotate(&run.join(CHECKPOINTS), self.config.checkpoints.keep, best)?;
        report::write_consumed(run, &self.progress.state)?;
        self.last = Some(path);
        Ok(())
    }

    /// Draws the curves; a failure of that ends no run.
    fn draw(&self, observe: Observer<'_>) {
        if !self.ranks.is_first() {
            return;
        }
        let drawn = report::read(&self.config.run)
            .map_err(|e| e.to_string())
            .and_then(|lines| report::draw(&lines, &self.config.run.join(CURVES)).map_err(|e| e.to_string()));
        if let Err(e) = drawn {
            observe(Event::Note(&format!("the curves could not be drawn: {e}")));
        }
    }
}

/// Keeps other processes out of a run's directory for as long as the file is held.
fn lock(run: &Path) -> Result<fs::File, TrainError> {
    fs::create_dir_all(run).map_err(TrainError::file("make", run))?;
    let path = run.join(LOCK);
    let file = fs::File::create(&path).map_err(TrainError::file("write", &path))?;
    match file.try_lock() {
        Err(fs::TryLockError::WouldBlock) => Err(TrainError::Locked(run.into())),
        // Where the file system knows no locks, there is none.
        _ => Ok(file),
    }
}

/// The configuration as run and the tokenizer, so that a run can be exported without its store.
fn write_inputs(config: &RunConfig, store: &TokenStore, model: &MixtralConfig) -> Result<(), TrainError> {
    let run = &config.run;
    fs::create_dir_all(run).map_err(TrainError::file("make", run))?;
    let copies = [("tokenizer.json", "tokenizer.json"), ("manifest.json", DATASET)];
    for (from, to) in copies {
        let (from, to) = (store.folder().join(from), run.join(to));
        let bytes = fs::read(&from).map_err(TrainError::file("read", &from))?;
        whole(&to, &bytes)?;
    }
    export::write_json(&run.join(MODEL_CONFIG), &model.to_json("float32"))?;
    // Last: where it is, the directory is a run.
    let path = run.join(CONFIG);
    whole(&path, config.to_toml().as_bytes())
}

/// Floating-point operations per second that products reach on the run's device, measured.
fn machine_rate(config: &RunConfig) -> Result<Option<f64>, TrainError> {
    if config.device != Place::Cpu {
        return Ok(product_rate(&config.device.open()?));
    }
    let threads = match config.threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let isa = Isa::from_env().unwrap_or_else(|_| Isa::best());
    Ok(Some(gemm_rate(&Pool::new(threads), isa, config.dtype.arithmetic(), 5)))
}
