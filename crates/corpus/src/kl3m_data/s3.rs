//! Objects in an S3 bucket.

use super::{Entry, Failure, StoreOptions};
use crate::kl3m_data::LARGEST;
use futures::TryStreamExt;
use object_store::{
    ClientOptions, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};
use std::{collections::HashSet, fs::File, io::Write, sync::Arc, time::Duration};
use tokio::runtime::{Builder, Runtime};

/// Bytes sent at a time. The server answers only when it has them all, so that the timeout is for them as a whole.
const PART: usize = 8 << 20;
/// After which time an object that breaks off is not gone on with any more.
const LONGEST_COPY: Duration = Duration::from_secs(7 * 24 * 3600);

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
        // No limit on a whole request: large objects take as long as they take while their bytes keep coming.
        let client = ClientOptions::new()
            .with_timeout_disabled()
            .with_read_timeout(options.timeout)
            .with_connect_timeout(options.timeout);
        // An object that broke off after hours is gone on with, too; what limits the tries is their number.
        let retry = RetryConfig {
            max_retries: options.retries,
            retry_timeout: LONGEST_COPY,
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
        self.runtime.block_on(async {
            if bytes.len() <= PART {
                self.store.put(&path, bytes.to_vec().into()).await?;
                return Ok(());
            }
            // It appears when all of its parts are there.
            let mut upload = self.store.put_multipart(&path).await?;
            let sent = async {
                for part in bytes.chunks(PART) {
                    upload.put_part(part.to_vec().into()).await?;
                }
                upload.complete().await
            };
            if let Err(e) = sent.await {
                // What was sent is paid for until it is removed; the first error is the one to tell.
                let _ = upload.abort().await;
                return Err(e.into());
            }
            Ok(())
        })
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
