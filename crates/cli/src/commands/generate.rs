//! `blackletter generate`

use super::{
    constraint::ConstraintArgs,
    model::ModelOptions,
    text::{Ids, read_text},
};
use crate::{
    failure::Failure,
    interrupt,
    output::{self, Output},
};
use blackletter_engine::{
    FinishReason, Generated, GenerationOptions, GenerationRequest, Pipeline, Prompt, constraint::Grammar,
    generate_constrained, python_json,
};
use blackletter_model::GenerationConfig;
use blackletter_tokenizer::SpecialTokens;
use blackletter_trace::{Index, SpanOptions};
use std::{ops::ControlFlow, path::PathBuf};

/// Continue a prompt with a model
///
/// Prints full texts, prompt included, as a JSON list on standard output. Settings that are not given come from the
/// model's generation_config.json, and what it does not say from the defaults of transformers. The same seed and options
/// give the same texts, whatever the number of threads. Ctrl-C ends early and prints what there is.
///
/// Under a constraint every continuation is whole, at any temperature: the tokens of the shortest way to an end are kept
/// in reserve. Only a limit too small for any whole text ends before; a line with `incomplete` on standard error says so.
#[derive(Debug, clap::Args)]
#[command(
    group = clap::ArgGroup::new("input").required(true).multiple(false),
    allow_negative_numbers = true,
    after_help = "EXAMPLE:\n  blackletter generate \"Under this\" --num-return-sequences 3 --temperature 0.5 --max-new-tokens 32"
)]
pub struct Args {
    /// The text to continue.
    #[arg(value_name = "PROMPT", group = "input")]
    prompt: Option<String>,
    /// Read the prompt from a UTF-8 file, or standard input for -; one newline at its end is dropped.
    #[arg(long, value_name = "FILE", group = "input")]
    prompt_file: Option<PathBuf>,
    /// Token ids in place of text, such as 5,6,7; with --format ids no tokenizer is needed.
    #[arg(long, value_name = "IDS", group = "input")]
    ids: Option<Ids>,
    /// Read special tokens such as <|end|> in the prompt as tokens; without this they are plain characters.
    #[arg(long)]
    parse_special: bool,
    /// Cut the beginning off a prompt that leaves too little of the context to the new tokens; without this, a prompt
    /// beyond the context is refused.
    #[arg(long)]
    truncate_prompt: bool,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    constraint: ConstraintArgs,
    #[command(flatten)]
    result: ResultArgs,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Generation")]
struct SamplingArgs {
    /// Most new tokens, at least 1 [default: generation_config.json, else 256].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_new_tokens: Option<u32>,
    /// How many continuations of the prompt, 1 to 1024.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    num_return_sequences: u16,
    /// Divides the logits, above 0; lower is less random [default: generation_config.json, else 1].
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Keep the K most likely tokens, 0 for all [default: generation_config.json, else 50].
    #[arg(long, value_name = "K")]
    top_k: Option<u32>,
    /// Keep the most likely tokens up to this probability, 0 to 1 [default: generation_config.json, else 1, which is off].
    #[arg(long, value_name = "P")]
    top_p: Option<f32>,
    /// Keep tokens of at least this share of the largest probability, 0 to 1 [default: generation_config.json, else 0,
    /// which is off].
    #[arg(long, value_name = "P")]
    min_p: Option<f32>,
    /// Keep the most typical tokens up to this probability, above 0 and at most 1 [default: generation_config.json, else
    /// 1, which is off].
    #[arg(long, value_name = "P")]
    typical_p: Option<f32>,
    /// Make tokens seen before less likely (above 1) or more (below), above 0 [default: generation_config.json, else 1,
    /// which is off].
    #[arg(long, value_name = "X")]
    repetition_penalty: Option<f32>,
    /// No sequence of N tokens comes twice, 0 for any [default: generation_config.json, else 0].
    #[arg(long, value_name = "N")]
    no_repeat_ngram_size: Option<u32>,
    /// Take the most likely token every time, without chance.
    #[arg(long)]
    greedy: bool,
    /// What makes the choices repeatable; give another number for other texts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// End a continuation once it contains this text, which stays in the result; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Result")]
struct ResultArgs {
    /// How results are printed.
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    /// Print text as it is made; needs --format text and one sequence.
    #[arg(long)]
    stream: bool,
    /// Print, in place of texts, JSON objects of each text with the spans of its continuation that stand in the training data,
    /// and their documents; DIR is an index that `blackletter index` wrote.
    #[arg(long, value_name = "DIR")]
    trace: Option<PathBuf>,
    /// Leave the prompt out of the results.
    #[arg(long)]
    no_prompt: bool,
    /// Keep characters beyond ASCII in JSON as UTF-8 in place of \u escapes.
    #[arg(long)]
    no_ascii: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// A JSON list of full texts, as Python's json.dumps(texts, indent=2) writes it
    Json,
    /// Plain full texts, an empty line between two
    Text,
    /// One JSON string a line
    Jsonl,
    /// A JSON list of lists of token ids, prompt included
    Ids,
}

impl Args {
    pub fn run(self) -> Result<(), Failure> {
        if self.result.stream
            && (self.result.format != Format::Text || self.sampling.num_return_sequences != 1)
        {
            return Err(Failure::usage(
                "--stream prints one text as it is made: it needs --format text and --num-return-sequences 1",
            ));
        }
        if self.result.trace.is_some() && self.result.format != Format::Json {
            return Err(Failure::usage("--trace prints JSON objects: leave --format out"));
        }
        if self.sampling.stop.iter().any(String::is_empty) {
            return Err(Failure::usage(
                "--stop '' would end every text before its first token: give the text to stop at",
            ));
        }
        let constraint = self.constraint.spec()?;
        if constraint.is_some() && !self.sampling.stop.is_empty() {
            return Err(Failure::usage(
                "--stop could end a text that a constraint keeps whole: leave one of the two out",
            ));
        }
        let text = match (self.prompt, &self.prompt_file) {
            (Some(text), _) => Some(text),
            (None, Some(path)) => {
                let mut text = read_text(path)?;
                text.truncate(
                    text.strip_suffix('\n').map_or(text.len(), |t| t.strip_suffix('\r').unwrap_or(t).len()),
                );
                Some(text)
            }
            (None, None) => None,
        };
        // What cannot be traced with is told before anything is made.
        let index = self.result.trace.as_deref().map(Index::open).transpose()?;
        let ids_only = text.is_none()
            && self.result.format == Format::Ids
            && self.sampling.stop.is_empty()
            && constraint.is_none();
        let pipeline = self.model.load(!ids_only)?;
        let special = if self.parse_special { SpecialTokens::Parse } else { SpecialTokens::AsText };
        let mut prompt = match text {
            Some(text) => pipeline.prompt(text, special)?,
            None => pipeline.prompt_of_ids(self.ids.unwrap_or_default().0),
        };
        let options = resolve(self.sampling.request(), &pipeline)?;
        if self.truncate_prompt {
            let cut = pipeline.truncate(&mut prompt, &options);
            if cut > 0 {
                eprintln!(
                    "note: the first {cut} tokens of the prompt were cut off, {} are left",
                    prompt.ids.len()
                );
            }
        }
        let grammar = match constraint {
            Some(spec) => Some(pipeline.vocabulary(&options.eos_token_id)?.compile(&spec)?),
            None => None,
        };
        interrupt::catch()?;
        if self.result.stream {
            return stream(&pipeline, &prompt, &options, grammar.as_ref(), !self.result.no_prompt);
        }
        let made = generate_constrained(
            &pipeline.engine,
            pipeline.tokenizer(),
            &prompt.ids,
            &options,
            grammar.as_ref(),
            &mut |_, _| go_on(),
        )?;
        if grammar.is_some() {
            report_incomplete(&made);
        }
        if self.result.no_prompt {
            prompt = Prompt { text: String::new(), ids: Vec::new() };
        }
        if let Some(index) = &index {
            output::print(traced(index, &pipeline, &prompt, &made)?)?;
            return interrupt::outcome();
        }
        output::print(self.result.render(&pipeline, &prompt, made.iter().map(|g| g.ids.as_slice())))?;
        interrupt::outcome()
    }
}

impl SamplingArgs {
    fn request(self) -> GenerationRequest {
        GenerationRequest {
            max_new_tokens: self.max_new_tokens.map(|n| n as usize),
            num_return_sequences: usize::from(self.num_return_sequences),
            greedy: self.greedy,
            temperature: self.temperature,
            top_k: self.top_k.map(|k| k as usize),
            top_p: self.top_p,
            min_p: self.min_p,
            typical_p: self.typical_p,
            repetition_penalty: self.repetition_penalty,
            no_repeat_ngram_size: self.no_repeat_ngram_size.map(|n| n as usize),
            seed: self.seed,
            stop: self.stop,
        }
    }
}

/// Fills in what the command line does not say; tells apart whose value is out of range.
fn resolve(request: GenerationRequest, pipeline: &Pipeline) -> Result<GenerationOptions, Failure> {
    let (file, model) = (&pipeline.generation_config, pipeline.engine.config());
    request
        .clone()
        .resolve(&GenerationConfig::default(), model)
        .map_err(|e| Failure::usage(format!("--{} {}: {}", e.option, e.value, e.allowed)))?;
    request.resolve(file, model).map_err(|e| {
        Failure::failed(format!(
            "generation_config.json: {e} (--{} on the command line comes before it)",
            e.option
        ))
    })
}

impl ResultArgs {
    fn render<'a>(
        &self,
        pipeline: &Pipeline,
        prompt: &Prompt,
        made: impl Iterator<Item = &'a [u32]>,
    ) -> String {
        if self.format == Format::Ids {
            let lists: Vec<Vec<u32>> = made.map(|new| [prompt.ids.as_slice(), new].concat()).collect();
            return python_json::id_lists(&lists) + "\n";
        }
        let texts: Vec<String> = made.map(|new| pipeline.full_text(prompt, new)).collect();
        match self.format {
            Format::Text => texts.join("\n\n") + "\n",
            Format::Jsonl => texts.iter().map(|t| python_json::text(t, !self.no_ascii) + "\n").collect(),
            _ => python_json::texts(&texts, !self.no_ascii) + "\n",
        }
    }
}

/// Texts with the spans of their continuations in the training data.
fn traced(
    index: &Index,
    pipeline: &Pipeline,
    prompt: &Prompt,
    made: &[Generated],
) -> Result<String, Failure> {
    let objects = made
        .iter()
        .map(|one| {
            let text = pipeline.full_text(prompt, &one.ids);
            // Spans are looked for in what is new, encoded as documents were.
            let continuation = text.get(prompt.text.len()..).unwrap_or_default();
            let trace = index.trace(continuation, SpanOptions::default())?;
            Ok(serde_json::json!({ "text": text, "continuation": continuation, "trace": trace }))
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    Ok(serde_json::to_string_pretty(&objects)? + "\n")
}

/// Says which texts under a constraint are not whole.
fn report_incomplete(made: &[Generated]) {
    for (number, text) in (1..).zip(made) {
        let hint = match text.finish_reason {
            FinishReason::Length => "; raise --max-new-tokens",
            FinishReason::Interrupted => "",
            FinishReason::Eos | FinishReason::Stop | FinishReason::Whole => continue,
        };
        let tokens = text.ids.len();
        eprintln!("incomplete: text {number} ends after {tokens} tokens, before it is whole{hint}");
    }
}

/// Prints the prompt, if it is wanted, then each piece of the continuation as soon as it is certain.
fn stream(
    pipeline: &Pipeline,
    prompt: &Prompt,
    options: &GenerationOptions,
    grammar: Option<&Grammar>,
    with_prompt: bool,
) -> Result<(), Failure> {
    let mut output = Output::stdout();
    if with_prompt {
        output.write(&prompt.text)?;
        output.flush()?;
    }
    let mut decoder = pipeline.tokenizer().map(|t| t.decode_stream(true));
    let mut closed = None;
    let mut print = |_: usize, id: u32| {
        if let Some(piece) = decoder.as_mut().and_then(|d| d.push(id))
            && let Err(failure) = output.write(piece).and_then(|()| output.flush())
        {
            closed = Some(failure);
            return ControlFlow::Break(());
        }
        go_on()
    };
    let tokenizer = pipeline.tokenizer();
    let made = generate_constrained(&pipeline.engine, tokenizer, &prompt.ids, options, grammar, &mut print)?;
    if let Some(failure) = closed {
        return Err(failure);
    }
    output.write(decoder.map(|d| d.finish()).unwrap_or_default())?;
    output.write("\n")?;
    output.flush()?;
    if grammar.is_some() {
        report_incomplete(&made);
    }
    interrupt::outcome()
}

fn go_on() -> ControlFlow<()> {
    if interrupt::asked() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
}
