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

    /// A constraint, compiled; those used last are kept.
    pub async fn grammar(self: &Arc<Self>, spec: ConstraintSpec) -> Result<Arc<Grammar>, ApiError> {
        let known = |shared: &Self| {
            let mut grammars = shared.grammars.lock().unwrap_or_else(PoisonError::into_inner);
            let at = grammars.iter().position(|(known, _)| *known == spec)?;
            let found = grammars.remove(at);
            let grammar = found.1.clone();
            grammars.push(found);
            Some(grammar)
        };
        if let Some(grammar) = known(self) {
            return Ok(grammar);
        }
        let shared = self.clone();
        let (asked, kept) = (spec.clone(), spec.clone());
        // A large schema takes a while; others go on meanwhile.
        let compiled = tokio::task::spawn_blocking(move || {
            let make = || shared.pipeline.vocabulary(&shared.eos).ok();
            match shared.vocabulary.get_or_init(make) {
                Some(vocabulary) => vocabulary.compile(&asked).map_err(|e| ApiError::from(&e)),
                None => Err(ApiError::param(
                    "response_format",
                    "constraints need a byte-level tokenizer, and this model has none",
                )),
            }
        });
        let grammar = Arc::new(compiled.await.map_err(ApiError::internal)??);
        let mut grammars = self.grammars.lock().unwrap_or_else(PoisonError::into_inner);
        grammars.push((kept, grammar.clone()));
        if grammars.len() > GRAMMARS {
            grammars.remove(0);
        }
        Ok(grammar)
    }
}
