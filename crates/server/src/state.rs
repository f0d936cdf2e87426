//! What all requests share.

use crate::{error::ApiError, scheduler::Scheduler, settings::Settings, template::ChatTemplate};
use blackletter_engine::{
    Pipeline,
    constraint::{ConstraintSpec, Grammar, Vocabulary},
};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::Semaphore;

/// Bytes of text that are made tokens at once.
const SHORT: usize = 16 << 10;

/// Compiled grammars that are kept.
const GRAMMARS: usize = 32;

/// The model and everything around it.
pub struct Shared {
    /// How the server is set up.
    pub settings: Settings,
    /// The model.
    pub pipeline: Arc<Pipeline>,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
    /// Conversations to prompts.
    pub template: ChatTemplate,
    /// What the model is, for people: JSON.
    pub about: String,
    /// The thread that runs the model.
    pub scheduler: Scheduler,
    /// Whether no more requests are taken on.
    pub ending: AtomicBool,
    /// When the server started, in seconds since 1970.
    pub created: u64,
    vocabulary: OnceLock<Option<Vocabulary>>,
    grammars: Mutex<Vec<(ConstraintSpec, Arc<Grammar>)>>,
    /// Places for constraints to be compiled, and for long texts to be made tokens.
    compiling: Arc<Semaphore>,
    encoding: Arc<Semaphore>,
    replies: AtomicU64,
    /// Made anew at each start, so that identifiers of two runs differ.
    run: String,
}

impl Shared {
    /// Everything around a model.
    pub fn new(
        settings: Settings,
        pipeline: Arc<Pipeline>,
        template: ChatTemplate,
        about: String,
        scheduler: Scheduler,
    ) -> Self {
        let eos = pipeline.eos_token_id();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let seed = format!("{:?} {}", since, std::process::id());
        let run = blake3::hash(seed.as_bytes()).to_hex().as_str().get(..12).unwrap_or_default().to_string();
        Self {
            settings,
            pipeline,
            eos,
            template,
            about,
            scheduler,
            ending: AtomicBool::new(false),
            created: since.as_secs(),
            vocabulary: OnceLock::new(),
            grammars: Mutex::default(),
            compiling: Arc::new(Semaphore::new((cores / 2).max(1))),
            encoding: Arc::new(Semaphore::new(cores)),
            replies: AtomicU64::new(0),
            run,
        }
    }

    /// A new identifier.
    pub fn reply_id(&self, prefix: &str) -> String {
        format!("{prefix}-{}{:012x}", self.run, self.replies.fetch_add(1, Ordering::Relaxed))
    }

    /// Seconds since 1970.
    pub fn now() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Whether no more requests are taken on.
    pub fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Relaxed)
    }

    /// Does what takes a while for long texts, of `length` bytes, beside the threads that answer.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn encode<T, W>(self: &Arc<Self>, length: usize, work: W) -> Result<T, ApiError>
    where
        T: Send + 'static,
        W: FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    {
        if length <= SHORT {
            return work(self);
        }
        let place = self.encoding.clone().acquire_owned().await.map_err(ApiError::internal)?;
        let shared = self.clone();
        let working = tokio::task::spawn_blocking(move || {
            let _place = place;
            work(&shared)
        });
        working.await.map_err(ApiError::internal)?
    }

    /// A constraint, compiled; those used last are kept. A large schema takes a while: others go on meanwhile, and few are
    /// compiled at a time.
    ///
    /// # Errors
    /// When it cannot be kept, takes too long, or those of others do.
    pub async fn grammar(self: &Arc<Self>, spec: ConstraintSpec) -> Result<Arc<Grammar>, ApiError> {
        if let Some(grammar) = self.known(&spec) {
            return Ok(grammar);
        }
        let limit = self.settings.compile_timeout;
        let place = tokio::time::timeout(limit, self.compiling.clone().acquire_owned()).await;
        let place = place.map_err(|_| ApiError::compiling())?.map_err(ApiError::internal)?;
        if let Some(grammar) = self.known(&spec) {
            return Ok(grammar);
        }
        let shared = self.clone();
        // Nobody can stop it: it keeps its place until it is done, however long that takes, and what comes of it is kept.
        let compiling = tokio::task::spawn_blocking(move || {
            let _place = place;
            shared.compile(spec)
        });
        let compiled = tokio::time::timeout(limit, compiling).await.map_err(|_| {
            let message = format!("the constraint takes more than {limit:?} to compile: make it smaller");
            ApiError::param("response_format", message)
        })?;
        compiled.map_err(ApiError::internal)?
    }

    fn known(&self, spec: &ConstraintSpec) -> Option<Arc<Grammar>> {
        let mut grammars = self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        let at = grammars.iter().position(|(known, _)| known == spec)?;
        let found = grammars.remove(at);
        let grammar = found.1.clone();
        grammars.push(found);
        Some(grammar)
    }

    fn compile(&self, spec: ConstraintSpec) -> Result<Arc<Grammar>, ApiError> {
        let vocabulary = self.vocabulary.get_or_init(|| self.pipeline.vocabulary(&self.eos).ok());
        let Some(vocabulary) = vocabulary else {
            return Err(ApiError::param(
                "response_format",
                "constraints need a byte-level tokenizer, and this model has none",
            ));
        };
        let grammar = Arc::new(vocabulary.compile(&spec).map_err(|e| ApiError::from(&e))?);
        let mut grammars = self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        grammars.push((spec, grammar.clone()));
        if grammars.len() > GRAMMARS {
            grammars.remove(0);
        }
        Ok(grammar)
    }
}
