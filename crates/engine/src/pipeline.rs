//! Text in, text out: an engine, its tokenizer and the settings beside them.

use crate::{
    Engine, EngineError, GenerationOptions, LoadOptions, ModelFiles, ScoreReport,
    constraint::{ConstraintError, Vocabulary},
    score_report,
};
use blackletter_model::{ConfigError, GenerationConfig};
use blackletter_tokenizer::{SpecialTokens, Tokenizer, TokenizerError};

/// The token that stands before a document.
const START: &str = "<|start|>";

/// A model could not be loaded or used with text.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The engine refuses.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The tokenizer refuses.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// `generation_config.json` cannot be used.
    #[error(transparent)]
    GenerationConfig(#[from] ConfigError),
    /// Text needs a tokenizer.
    #[error(
        "text needs a tokenizer, and this model has none ({0}): give token ids in place of text, and ask for ids"
    )]
    NoTokenizer(TokenizerError),
    /// The tokenizer makes ids that the model cannot look up.
    #[error(
        "the tokenizer has {tokens} tokens and the model's embedding {rows} rows: they do not belong together"
    )]
    TokenizerTooLarge {
        /// Highest id, plus one.
        tokens: usize,
        /// Rows of the embedding.
        rows: usize,
    },
    /// A constraint cannot be used.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// There is no token to start with.
    #[error(
        "the model has no start token: neither its tokenizer has {START} nor config.json a \"bos_token_id\""
    )]
    NoStart,
}

/// A model ready for text.
pub struct Pipeline {
    /// Runs the model.
    pub engine: Engine,
    /// What `generation_config.json` says.
    pub generation_config: GenerationConfig,
    tokenizer: Option<Tokenizer>,
}

/// What a model goes on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prompt {
    /// As results show it.
    pub text: String,
    /// As the model sees it.
    pub ids: Vec<u32>,
}

impl Pipeline {
    /// Loads a model; work on ids alone can do `with_tokenizer` false.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn load(
        files: &ModelFiles,
        options: &LoadOptions,
        with_tokenizer: bool,
    ) -> Result<Self, PipelineError> {
        let checkpoint = files.checkpoint().map_err(EngineError::from)?;
        let tokenizer = if with_tokenizer { Some(load_tokenizer(files)?) } else { None };
        let rows = checkpoint.config.vocab_size;
        if let Some(tokens) = tokenizer.as_ref().map(Tokenizer::vocab_size).filter(|&tokens| tokens > rows) {
            return Err(PipelineError::TokenizerTooLarge { tokens, rows });
        }
        let generation_config = files.generation_config()?;
        Ok(Self { engine: Engine::from_checkpoint(&checkpoint, options)?, generation_config, tokenizer })
    }

    /// The tokenizer, when it was asked for.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_ref()
    }

    /// Tokens that end a text: those of `generation_config.json`, else of `config.json`.
    pub fn eos_token_id(&self) -> Vec<u32> {
        let file = self.generation_config.eos_token_id.clone();
        file.unwrap_or_else(|| self.engine.config().eos_token_id.clone())
    }

    /// A prompt from text; from empty text, the start token alone, as transformers does.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn prompt(&self, text: String, special: SpecialTokens) -> Result<Prompt, PipelineError> {
        let mut ids = self.encode(&text, special)?;
        if ids.is_empty() {
            ids.push(self.start_token()?);
        }
        Ok(Prompt { text, ids })
    }

    /// A prompt from ids.
    pub fn prompt_of_ids(&self, ids: Vec<u32>) -> Prompt {
        let text = self.tokenizer.as_ref().map(|t| t.decode(&ids, true)).unwrap_or_default();
        Prompt { text, ids }
    }

    /// Cuts the beginning of a prompt off, so that the new tokens fit the context beside it; at least half the context is
    /// left to the prompt. Gives how many tokens went.
    pub fn truncate(&self, prompt: &mut Prompt, options: &GenerationOptions) -> usize {
        let context = self.engine.config().max_position_embeddings;
        let keep = context - options.max_new_tokens.min(context / 2);
        let cut = prompt.ids.len().saturating_sub(keep);
        prompt.ids.drain(..cut);
        cut
    }

    /// The text of prompt and new ids as transformers' text-generation pipeline puts it together: the prompt's own
    /// characters, then what the new ids decode to without special tokens.
    pub fn full_text(&self, prompt: &Prompt, new: &[u32]) -> String {
        let continuation = self.tokenizer.as_ref().map(|t| t.decode(new, true)).unwrap_or_default();
        format!("{}{continuation}", prompt.text)
    }

    /// Scores text: exactly its tokens, with the start token in front when `start`.
    ///
    /// # Errors
    /// When there are too few tokens.
    pub fn score_text(
        &self,
        text: &str,
        special: SpecialTokens,
        start: bool,
    ) -> Result<ScoreReport, PipelineError> {
        let mut ids = self.encode(text, special)?;
        if start {
            ids.insert(0, self.start_token()?);
        }
        let predicted = ids.get(1..).unwrap_or_default();
        let bytes = self.tokenizer.as_ref().map(|t| t.byte_lengths(predicted).iter().sum());
        Ok(score_report(&self.engine, ids, bytes)?)
    }

    /// Scores ids, with the start token in front when `start`.
    ///
    /// # Errors
    /// When there are too few or one is out of range.
    pub fn score_ids(&self, mut ids: Vec<u32>, start: bool) -> Result<ScoreReport, PipelineError> {
        if start {
            ids.insert(0, self.start_token()?);
        }
        Ok(score_report(&self.engine, ids, None)?)
    }

    /// The tokens of text as they are, without a start token.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, PipelineError> {
        match &self.tokenizer {
            Some(tokenizer) => Ok(tokenizer.encode(text, special)?),
            None => {
                Err(EngineError::Empty("text needs a tokenizer, and the model was loaded without").into())
            }
        }
    }

    /// What constraints have to know of the model's tokens, of which `eos` end a text.
    ///
    /// # Errors
    /// When the model has no tokenizer, or none whose tokens stand for bytes.
    pub fn vocabulary(&self, eos: &[u32]) -> Result<Vocabulary, PipelineError> {
        let Some(tokenizer) = &self.tokenizer else { return Err(ConstraintError::Tokenizer.into()) };
        Ok(Vocabulary::new(tokenizer, self.engine.config().vocab_size, eos)?)
    }

    fn start_token(&self) -> Result<u32, PipelineError> {
        let named = self.tokenizer.as_ref().and_then(|t| t.token_id(START));
        named.or(self.engine.config().bos_token_id).ok_or(PipelineError::NoStart)
    }
}

fn load_tokenizer(files: &ModelFiles) -> Result<Tokenizer, PipelineError> {
    files.tokenizer().map_err(|error| match error {
        TokenizerError::Read { ref source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            PipelineError::NoTokenizer(error)
        }
        other => other.into(),
    })
}
