//! Objects in an S3 bucket.

use super::{Entry, Failure, StoreOptions};
use crate::kl3m_data::LARGEST;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use std::{collections::HashSet, fs::File, io::Write, sync::Arc};
use tokio::runtime::{Builder, Runtime};

pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    /// Put before every key.
    prefix: Path,
    runtime: Runtime,
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Missing,
            error => Self::Other(error.to_string()),
        }
    }
}

impl Bucket {
    /// `address` is `bucket` or `bucket/prefix`.
    pub(super) fn open(address: &str, options: &StoreOptions) -> Result<Self, String> {
        let (bucket, prefix) = address.split_once('/').unwrap_or((address, ""));
        if bucket.is_empty() {
            return Err("it names no bucket; write s3://BUCKET or s3://BUCKET/PREFIX".into());
        }
        let client = ClientOptions::new().with_timeout(options.timeout).with_connect_timeout(options.timeout);
        let retry = RetryConfig {
            max_retries: options.retries,
            // Each try may take the whole timeout.
            retry_timeout: options.timeout * (options.retries as u32 + 1),
            ..RetryConfig::default()
        };
        let mut builder = AmazonS3Builder::from_env()
            .with_bucket_name(bucket)
            .with_request_payer(options.requester_pays)
            .with_retry(retry);
        let plain = options.endpoint.as_deref().is_some_and(|url| url.starts_with("http://"));
        builder = builder.with_client_options(client.with_allow_http(plain));
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint);
        }
        if std::env::var_os("AWS_ACCESS_KEY_ID").is_none() {
            builder = builder.with_skip_signature(true);
        }
        let store = Arc::new(builder.build().map_err(|e| e.to_string())?);
        let prefix = Path::parse(prefix.trim_end_matches('/')).map_err(|e| e.to_string())?;
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        Ok(Self { store, prefix, runtime })
    }

    fn path(&self, key: &str) -> Result<Path, Failure> {
        let full =
            if self.prefix.as_ref().is_empty() { key.to_string() } else { format!("{}/{key}", self.prefix) };
        Path::parse(full).map_err(|e| Failure::Other(e.to_string()))
    }

    pub(super) fn get(&self, key: &str) -> Result<Vec<u8>, Failure> {
        let path = self.path(key)?;
        self.runtime.block_on(async {
            let found = self.store.get(&path).await?;
            if found.meta.size > LARGEST {
                return Err(Failure::Other(format!("it has {} bytes, more than {LARGEST}", found.meta.size)));
            }
            Ok(found.bytes().await?.to_vec())
        })
    }

    pub(super) fn put(&self, key: &str, bytes: &[u8]) -> Result<(), Failure> {
        let path = self.path(key)?;
        self.runtime.block_on(self.store.put(&path, bytes.to_vec().into()))?;
        Ok(())
    }

    /// Copies an object piece by piece.
    pub(super) fn copy(&self, key: &str, to: &mut File) -> Result<u64, Failure> {
        let path = self.path(key)?;
        self.runtime.block_on(async {
            let mut pieces = self.store.get(&path).await?.into_stream();
            let mut copied = 0;
            while let Some(piece) = pieces.try_next().await? {
                to.write_all(&piece)?;
                copied += piece.len() as u64;
            }
            Ok(copied)
        })
    }

    pub(super) fn entry(&self, key: &str) -> Result<Entry, Failure> {
        let path = self.path(key)?;
        let found = self.runtime.block_on(self.store.head(&path))?;
        Ok(entry(key.into(), &found))
    }

    pub(super) fn entries(&self, prefix: &str) -> Result<Vec<Entry>, Failure> {
        let path =
            if prefix.is_empty() { self.prefix.clone() } else { self.path(prefix.trim_end_matches('/'))? };
        let skip = if self.prefix.as_ref().is_empty() { 0 } else { self.prefix.as_ref().len() + 1 };
        self.runtime.block_on(async {
            let listed: Vec<_> = self.store.list(Some(&path)).try_collect().await?;
            // Some tools write an empty object for each folder, which cannot be read under the folder's name.
            let folders: HashSet<&str> = listed
                .iter()
                .filter_map(|m| m.location.as_ref().rsplit_once('/'))
                .flat_map(|(folder, _)| {
                    folder.match_indices('/').map(|(at, _)| &folder[..at]).chain([folder]).collect::<Vec<_>>()
                })
                .collect();
            let named = |m: &ObjectMeta| {
                let key = m.location.as_ref();
                let folder = m.size == 0 && (folders.contains(key) || key == path.as_ref());
                (!folder).then(|| Some(entry(key.get(skip..)?.into(), m))).flatten()
            };
            Ok(listed.iter().filter_map(named).collect())
        })
    }

    pub(super) fn list(&self, prefix: &str) -> Result<Vec<String>, Failure> {
        Ok(self.entries(prefix)?.into_iter().map(|entry| entry.key).collect())
    }
}

fn entry(key: String, found: &ObjectMeta) -> Entry {
    // Every server tells when an object was written; most give its bytes a tag, too.
    let version = format!("{} {}", found.e_tag.as_deref().unwrap_or_default(), found.last_modified);
    Entry { key, bytes: found.size, version }
}
