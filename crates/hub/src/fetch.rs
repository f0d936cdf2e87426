//! From a repository's name to a directory.

use crate::{HubError, Repository, cache::Cache, download::download, files, hub::Hub, repository::is_name};
use std::{collections::BTreeSet, env, path::PathBuf, time::Duration};

/// How to reach the Hub; what is `None` is as the environment says.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The Hub's address, else `HF_ENDPOINT`, else the public one.
    pub endpoint: Option<String>,
    /// The token, else `HF_TOKEN`, else the one that was saved by logging in.
    pub token: Option<String>,
    /// The cache, else `HF_HUB_CACHE`, else `hub` in `HF_HOME` or `~/.cache/huggingface`.
    pub cache_dir: Option<PathBuf>,
    /// Only what is in the cache.
    pub offline: bool,
    /// How long the Hub may take to answer, or to go on with an answer.
    pub patience: Duration,
}

/// The longest wait for news of a model that is in the cache.
const PATIENCE_WITH_A_COPY: Duration = Duration::from_secs(10);

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            token: None,
            cache_dir: None,
            offline: false,
            patience: Duration::from_secs(60),
        }
    }
}

impl Settings {
    /// As the environment says.
    pub fn from_env() -> Self {
        let value = env::var("HF_HUB_OFFLINE").unwrap_or_default().to_ascii_uppercase();
        Self { offline: matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE"), ..Self::default() }
    }
}

/// A model in the cache.
#[derive(Debug)]
pub struct Fetched {
    /// Its directory.
    pub dir: PathBuf,
    /// Why it is not known whether there is a newer one: the Hub could not be reached, or was in trouble.
    pub unchecked: Option<HubError>,
}

/// Finds a model in the cache, after fetching what is missing there: `config.json`, safetensors weights (with index and
/// shards), tokenizer, generation settings, model card and licence, and every file that its record or signature covers, so that
/// both can be checked. Progress is drawn on standard error when it is a terminal. When the Hub cannot be reached or is in trouble, what was fetched before is used, and that is told.
///
/// # Errors
/// When the model is neither there nor can be fetched.
pub fn fetch(repository: &Repository, settings: &Settings) -> Result<Fetched, HubError> {
    let hub = Hub::new(repository, settings)?;
    let cache = Cache::new(hub.cache_dir(), repository);
    if settings.offline {
        let offline =
            || HubError::Offline { repository: Box::new(repository.clone()), cache: hub.cache_dir().into() };
        return cache.find().map(|dir| Fetched { dir, unchecked: None }).ok_or_else(offline);
    }
    // Whoever has the model need not wait long to hear that there is no newer one.
    let patience =
        if cache.find().is_some() { settings.patience.min(PATIENCE_WITH_A_COPY) } else { settings.patience };
    match runtime(&hub)?.block_on(online(&hub, &cache, patience)) {
        Ok(dir) => Ok(Fetched { dir, unchecked: None }),
        Err(error) if error.is_of_the_moment() => match cache.find() {
            Some(dir) => Ok(Fetched { dir, unchecked: Some(error) }),
            None => Err(error),
        },
        Err(error) => Err(error),
    }
}

/// What runs requests.
pub(crate) fn runtime(hub: &Hub<'_>) -> Result<tokio::runtime::Runtime, HubError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|e| hub.error(e.into()))
}

async fn online(hub: &Hub<'_>, cache: &Cache, patience: Duration) -> Result<PathBuf, HubError> {
    let not_a_model = |why: String| HubError::NotAModel { repository: Box::new(hub.repository.clone()), why };
    let info = hub.info(patience).await?;
    let commit = info.sha.filter(|sha| is_name(sha)).ok_or_else(|| hub.answer("it states no commit"))?;
    let present: BTreeSet<String> = info.siblings.into_iter().flatten().map(|file| file.rfilename).collect();
    let dir = cache.snapshot(&commit);
    for file in files::small_files(&present).map_err(not_a_model)? {
        if !dir.join(file).is_file() {
            download(hub, cache, &commit, file).await?;
        }
    }
    for file in files::weight_files(&dir).map_err(not_a_model)? {
        if !present.contains(&file) {
            return Err(not_a_model(format!("{} names {file}, which is not there", files::INDEX)));
        }
        if !dir.join(&file).is_file() {
            download(hub, cache, &commit, &file).await?;
        }
    }
    for file in files::covered_files(&dir, &present) {
        if !dir.join(&file).is_file() {
            download(hub, cache, &commit, &file).await?;
        }
    }
    cache.refer(&commit)?;
    Ok(dir)
}
