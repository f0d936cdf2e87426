//! What is seen of a run: a bar and what happened above it; plain lines where standard error is no terminal.

use blackletter_trainer::{Event, report::StepRecord};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

/// Time between plain lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Shows the events of a run on standard error.
pub struct View {
    bar: Option<ProgressBar>,
    steps: u64,
    /// Seconds of a step, a moving average.
    seconds: f64,
    loss: f64,
    said: Option<Instant>,
}

impl View {
    pub fn new() -> Self {
        let bar = io::stderr().is_terminal().then(|| ProgressBar::new(0));
        Self { bar, steps: 0, seconds: 0.0, loss: 0.0, said: None }
    }

    pub fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Started { run, parameters, done, steps, epoch_rows, rate } => {
                self.steps = *steps;
                self.say(&format!(
                    "{}: {:.1} M parameters, {steps} steps{}, {epoch_rows} rows an epoch{}",
                    run.display(),
                    *parameters as f64 / 1e6,
                    if *done > 0 { format!(", {done} done") } else { String::new() },
                    rate.map(|rate| format!(", {:.0} GFLOP/s in products", rate / 1e9)).unwrap_or_default()
                ));
                if let Some(bar) = &self.bar {
                    let style = ProgressStyle::with_template("{wide_bar:.cyan} {pos}/{len} {msg}");
                    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
                    bar.set_length(*steps);
                    bar.set_position(*done);
                }
            }
            Event::Step(record) => self.step(record),
            Event::Evaluated { step, average, scores } => {
                let each: Vec<String> = scores
                    .datasets
                    .iter()
                    .map(|(name, s)| format!("{name} {:.3}", s.bits_per_byte))
                    .collect();
                self.say(&format!(
                    "step {step}: held-out loss {:.4}, perplexity {:.2}, bits per byte {:.4}{} ({})",
                    scores.all.loss,
                    scores.all.perplexity,
                    scores.all.bits_per_byte,
                    if *average { ", averaged weights" } else { "" },
                    each.join(", ")
                ));
            }
            Event::Sampled { step, sample } => {
                self.say(&format!("step {step}: {:?} → {:?}", sample.prompt, sample.text));
            }
            Event::Saved(path) => self.say(&format!("saved {}", path.display())),
            Event::Note(note) => self.say(&format!("note: {note}")),
        }
    }

    fn step(&mut self, r: &StepRecord) {
        let blend = |old: f64, new: f64| if old == 0.0 { new } else { 0.95 * old + 0.05 * new };
        self.seconds = blend(self.seconds, r.seconds);
        self.loss = blend(self.loss, r.cross_entropy);
        let left = Duration::from_secs_f64((self.steps.saturating_sub(r.step)) as f64 * self.seconds);
        let numbers = format!(
            "loss {:.4} (mean {:.4}), rate {:.2e}, norm {:.2}, {:.0} tokens/s{}, {} left",
            r.cross_entropy,
            self.loss,
            r.rate,
            r.gradient_norm,
            r.tokens_per_s,
            r.mfu.map(|mfu| format!(", MFU {:.0} %", 100.0 * mfu)).unwrap_or_default(),
            hours(left)
        );
        match &self.bar {
            Some(bar) => {
                bar.set_position(r.step);
                bar.set_message(numbers);
            }
            None => {
                let due = self.said.is_none_or(|said| said.elapsed() >= PAUSE);
                if due || r.step == self.steps {
                    self.say(&format!("step {}/{}: {numbers}", r.step, self.steps));
                    self.said = Some(Instant::now());
                }
            }
        }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{line}")),
            None => eprintln!("{line}"),
        }
    }

    /// Leaves the terminal as it was.
    pub fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn hours(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}
