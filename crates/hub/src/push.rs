//! A model directory to a repository of the Hub: one commit, with large files stored beside it (LFS).
//!
//! The steps are those of the Hub's own clients: ask how each file is to be stored (`preupload`), hand over large ones that are not
//! there yet (LFS batch, basic or multipart), then commit ([`push`]). Without being told to publish, nothing is sent that
//! changes anything; [`plan`] says what would be.

use crate::{HubError, Repository, Settings, fetch::runtime, hub::Hub, payload::Payload};
use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

/// Bytes from the beginning of a file by which the Hub decides how to store it.
const SAMPLE: usize = 512;
/// Type of requests and answers about large files.
const LFS: &str = "application/vnd.git-lfs+json";

/// A file to push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushFile {
    /// Its place in the repository, with `/` between parts.
    pub name: String,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes.
    pub bytes: u64,
    /// SHA-256, in hexadecimal.
    pub sha256: String,
}

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Files of the commit.
    pub files: usize,
    /// Bytes of large files that were sent; those that the Hub has already are not.
    pub sent: u64,
    /// The commit, where the Hub names it.
    pub commit: Option<String>,
}

/// The files of a model directory that a push sends, by name: those of folders in it too, without hidden ones but for
/// `.gitattributes`.
///
/// # Errors
/// When one cannot be read, or there is none.
pub fn plan(folder: &Path) -> Result<Vec<PushFile>, HubError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| HubError::Local { path, source }
    };
    let mut files = Vec::new();
    let mut left = vec![(folder.to_owned(), String::new())];
    while let Some((dir, prefix)) = left.pop() {
        for entry in fs::read_dir(&dir).map_err(failed(&dir))? {
            let path = entry.map_err(failed(&dir))?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            if name.starts_with('.') && name != ".gitattributes" {
                continue;
            }
            let name = format!("{prefix}{name}");
            if path.is_dir() {
                left.push((path, format!("{name}/")));
                continue;
            }
            let (bytes, sha256) = hash(&path).map_err(failed(&path))?;
            files.push(PushFile { name, path, bytes, sha256 });
        }
    }
    if files.is_empty() {
        let source = io::Error::new(io::ErrorKind::NotFound, "there is no file to push");
        return Err(HubError::Local { path: folder.into(), source });
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(files)
}

fn hash(path: &Path) -> io::Result<(u64, String)> {
    let mut file = File::open(path)?;
    let (mut hasher, mut piece, mut bytes) = (Sha256::new(), vec![0; 1 << 20], 0);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        bytes += read as u64;
        hasher.update(&piece[..read]);
    }
    Ok((bytes, hasher.finalize().iter().map(|b| format!("{b:02x}")).collect()))
}

/// Commits files to a repository, which is made if it is not there. `progress` is told the bytes of large files that are done, of
/// how many.
///
/// # Errors
/// When there is no token, the Hub refuses or cannot be reached, or a file changes meanwhile.
pub fn push(
    repository: &Repository,
    files: &[PushFile],
    message: &str,
    private: bool,
    settings: &Settings,
    progress: &dyn Fn(u64, u64),
) -> Result<Pushed, HubError> {
    let hub = Hub::new(repository, settings)?;
    if !hub.has_token() {
        return Err(HubError::NoToken { endpoint: hub.endpoint().to_string() });
    }
    runtime(&hub)?.block_on(async {
        create(&hub, private).await?;
        let large = upload_modes(&hub, files).await?;
        let sent = upload(&hub, &large, progress).await?;
        let commit = commit(&hub, files, &large, message).await?;
        Ok(Pushed { files: files.len(), sent, commit })
    })
}

/// Makes the repository; one that is there is as good.
async fn create(hub: &Hub<'_>, private: bool) -> Result<(), HubError> {
    let Repository { owner, name, .. } = hub.repository;
    let body = json!({ "type": "model", "name": name, "organization": owner, "private": private });
    let url = format!("{}/api/repos/create", hub.endpoint());
    let (status, text) =
        hub.send(Method::POST, &url, "application/json", body.to_string().into_bytes()).await?;
    if status.is_success() || status == StatusCode::CONFLICT {
        Ok(())
    } else {
        Err(hub.refused(status, &text))
    }
}

/// The files that are to be stored as large ones.
async fn upload_modes<'f>(hub: &Hub<'_>, files: &'f [PushFile]) -> Result<Vec<&'f PushFile>, HubError> {
    let mut asked = Vec::new();
    for file in files {
        let mut sample = Vec::new();
        let read = File::open(&file.path).and_then(|f| f.take(SAMPLE as u64).read_to_end(&mut sample));
        read.map_err(|source| HubError::Local { path: file.path.clone(), source })?;
        asked.push(json!({ "path": file.name, "size": file.bytes, "sample": STANDARD.encode(sample) }));
    }
    let url = format!("{}/preupload/{}", api(hub), hub.repository.revision.replace('/', "%2F"));
    let answer = ask(hub, &url, "application/json", &json!({ "files": asked })).await?;
    let modes: BTreeMap<&str, &str> = answer["files"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|f| Some((f["path"].as_str()?, f["uploadMode"].as_str()?)))
        .collect();
    let large = |file: &&PushFile| file.bytes > 0 && modes.get(file.name.as_str()) == Some(&"lfs");
    Ok(files.iter().filter(large).collect())
}

fn api(hub: &Hub<'_>) -> String {
    let Repository { owner, name, .. } = hub.repository;
    format!("{}/api/models/{owner}/{name}", hub.endpoint())
}

/// Asks for JSON.
async fn ask(hub: &Hub<'_>, url: &str, kind: &str, body: &Value) -> Result<Value, HubError> {
    let (status, text) = hub.send(Method::POST, url, kind, body.to_string().into_bytes()).await?;
    if !status.is_success() {
        return Err(hub.refused(status, &text));
    }
    serde_json::from_str(&text).map_err(|e| hub.answer(format!("{url}: {e}")))
}

/// Sends the large files that the Hub does not have.
async fn upload(hub: &Hub<'_>, files: &[&PushFile], progress: &dyn Fn(u64, u64)) -> Result<u64, HubError> {
    if files.is_empty() {
        return Ok(0);
    }
    let Repository { owner, name, revision } = hub.repository;
    let url = format!("{}/{owner}/{name}.git/info/lfs/objects/batch", hub.endpoint());
    let objects: Vec<Value> = files.iter().map(|f| json!({ "oid": f.sha256, "size": f.bytes })).collect();
    let body = json!({
        "operation": "upload", "transfers": ["basic", "multipart"], "hash_algo": "sha256", "ref": { "name": revision },
        "objects": objects,
    });
    let answer = ask(hub, &url, LFS, &body).await?;
    let answers: BTreeMap<&str, &Value> = answer["objects"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|object| Some((object["oid"].as_str()?, object)))
        .collect();
    let total = files.iter().map(|f| f.bytes).sum();
    let (mut done, mut sent) = (0, 0);
    for file in files {
        progress(done, total);
        let object = answers.get(file.sha256.as_str());
        let object = object.ok_or_else(|| hub.answer(format!("nothing is said of {}", file.name)))?;
        if let Some(error) = object["error"]["message"].as_str() {
            return Err(hub.answer(format!("{}: {error}", file.name)));
        }
        // Without an action, the Hub has it.
        if let Some(href) = object["actions"]["upload"]["href"].as_str() {
            let headers = &object["actions"]["upload"]["header"];
            match headers["chunk_size"]
                .as_str()
                .and_then(|text| text.parse::<u64>().ok())
                .filter(|&size| size > 0)
            {
                Some(size) => parts(hub, file, href, headers, size).await?,
                None => {
                    let whole = Payload::Part { file: &file.path, from: 0, bytes: file.bytes };
                    let (status, text, _) = hub.send_elsewhere(Method::PUT, href, headers, &whole).await?;
                    if !status.is_success() {
                        return Err(hub.refused(status, &text));
                    }
                }
            }
            sent += file.bytes;
        }
        let verify = &object["actions"]["verify"];
        if let Some(href) = verify["href"].as_str() {
            let body = json!({ "oid": file.sha256, "size": file.bytes }).to_string().into_bytes();
            let (status, text) = hub.send(Method::POST, href, LFS, body).await?;
            if !status.is_success() {
                return Err(hub.refused(status, &text));
            }
        }
        done += file.bytes;
        progress(done, total);
    }
    Ok(sent)
}

/// Sends a file in parts, each to an address of its own, and says which they were.
async fn parts(
    hub: &Hub<'_>,
    file: &PushFile,
    href: &str,
    headers: &Value,
    size: u64,
) -> Result<(), HubError> {
    let mut made = Vec::new();
    for number in 0..file.bytes.div_ceil(size) {
        let address =
            headers[(number + 1).to_string()].as_str().or(headers[format!("{:05}", number + 1)].as_str());
        let address = address
            .ok_or_else(|| hub.answer(format!("part {} of {} has no address", number + 1, file.name)))?;
        let from = number * size;
        let part = Payload::Part { file: &file.path, from, bytes: size.min(file.bytes - from) };
        let (status, text, etag) = hub.send_elsewhere(Method::PUT, address, &Value::Null, &part).await?;
        if !status.is_success() {
            return Err(hub.refused(status, &text));
        }
        made.push(json!({ "partNumber": number + 1, "etag": etag.unwrap_or_default() }));
    }
    let body = json!({ "oid": file.sha256, "parts": made }).to_string().into_bytes();
    let (status, text) = hub.send(Method::POST, href, LFS, body).await?;
    if status.is_success() { Ok(()) } else { Err(hub.refused(status, &text)) }
}

/// A small file as it was planned to be sent.
fn content(file: &PushFile) -> Result<Vec<u8>, HubError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut content = Vec::with_capacity(file.bytes as usize);
        File::open(&file.path)?.take(file.bytes).read_to_end(&mut content)?;
        if content.len() as u64 != file.bytes {
            return Err(io::Error::other("the file was shortened meanwhile"));
        }
        Ok(content)
    };
    read().map_err(|source| HubError::Local { path: file.path.clone(), source })
}

async fn commit(
    hub: &Hub<'_>,
    files: &[PushFile],
    large: &[&PushFile],
    message: &str,
) -> Result<Option<String>, HubError> {
    let mut body = Vec::new();
    let mut line = |value: Value| {
        body.extend(value.to_string().into_bytes());
        body.push(b'\n');
    };
    line(json!({ "key": "header", "value": { "summary": message, "description": "" } }));
    for file in files {
        if large.iter().any(|one| one.name == file.name) {
            let value =
                json!({ "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.bytes });
            line(json!({ "key": "lfsFile", "value": value }));
        } else {
            let content = STANDARD.encode(content(file)?);
            let value = json!({ "path": file.name, "content": content, "encoding": "base64" });
            line(json!({ "key": "file", "value": value }));
        }
    }
    let url = format!("{}/commit/{}", api(hub), hub.repository.revision.replace('/', "%2F"));
    let (status, text) = hub.send(Method::POST, &url, "application/x-ndjson", body).await?;
    if !status.is_success() {
        return Err(hub.refused(status, &text));
    }
    let answer: Value = serde_json::from_str(&text).unwrap_or_default();
    Ok(answer["commitOid"].as_str().map(str::to_owned))
}
