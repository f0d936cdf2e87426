//! Pushing, to a Hub on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use blackletter_hub::{HubError, Settings, plan, push};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};
use tempfile::TempDir;

/// Bytes of a body that are kept; a longer one is counted and thrown away.
const KEPT: u64 = 1 << 20;

/// A request: method, path, headers, body.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    authorization: Option<String>,
    length: u64,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut length, mut authorization) = (0u64, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(": ") else { break };
        match name.to_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = Vec::new();
    reader.by_ref().take(length.min(KEPT)).read_to_end(&mut body).ok()?;
    let rest = io::copy(&mut reader.take(length.saturating_sub(KEPT)), &mut io::sink()).ok()?;
    (body.len() as u64 + rest == length).then_some(Request { method, path, authorization, length, body })
}

/// A Hub that stores `.safetensors` as large files in parts of `chunk` bytes (0: in one piece) and has those of `known` already.
fn hub(chunk: usize, known: &'static [&'static str], refuse: bool) -> (String, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (kept, own) = (seen.clone(), address.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let Some(request) = read(&stream) else { continue };
            let (status, answer) = answer(&own, &request, chunk, known, refuse);
            kept.lock().unwrap().push(request);
            let head = format!(
                "HTTP/1.1 {status} x\r\nETag: \"tag\"\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all((head + &answer).as_bytes());
        }
    });
    (address, seen)
}

fn answer(address: &str, request: &Request, chunk: usize, known: &[&str], refuse: bool) -> (u16, String) {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match request.path.as_str() {
        "/api/repos/create" => (409, "{}".into()),
        "/api/models/owner/nano/preupload/main" => {
            let mode = |f: &Value| {
                if f["path"].as_str().unwrap().ends_with(".safetensors") { "lfs" } else { "regular" }
            };
            let files: Vec<Value> = body["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|f| json!({ "path": f["path"], "uploadMode": mode(f) }))
                .collect();
            (200, json!({ "files": files }).to_string())
        }
        "/owner/nano.git/info/lfs/objects/batch" => {
            let objects: Vec<Value> = body["objects"]
                .as_array()
                .unwrap()
                .iter()
                .map(|o| {
                    let oid = o["oid"].as_str().unwrap();
                    if known.contains(&oid) {
                        return json!({ "oid": oid });
                    }
                    let mut header = serde_json::Map::new();
                    if chunk > 0 {
                        header.insert("chunk_size".into(), chunk.to_string().into());
                        for part in 1..=o["size"].as_u64().unwrap().div_ceil(chunk as u64) {
                            header.insert(part.to_string(), format!("{address}/store/{oid}/{part}").into());
                        }
                    }
                    json!({ "oid": oid, "actions": {
                        "upload": { "href": format!("{address}/store/{oid}"), "header": header },
                        "verify": { "href": format!("{address}/verify") },
                    } })
                })
                .collect();
            (200, json!({ "objects": objects }).to_string())
        }
        "/api/models/owner/nano/commit/main" if refuse => (403, "no right to write".into()),
        "/api/models/owner/nano/commit/main" => (200, json!({ "commitOid": "abc" }).to_string()),
        _ => (200, String::new()),
    }
}

fn model() -> TempDir {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("model.safetensors"), "0123456789").unwrap();
    fs::write(dir.path().join("config.json"), "{}").unwrap();
    fs::create_dir(dir.path().join("figures")).unwrap();
    fs::write(dir.path().join("figures/loss.svg"), "<svg/>").unwrap();
    fs::write(dir.path().join(".cache"), "x").unwrap();
    dir
}

fn settings(address: &str) -> Settings {
    Settings { endpoint: Some(address.into()), token: Some("secret".into()), ..Settings::default() }
}

#[test]
fn small_files_go_into_the_commit_and_large_ones_beside_it() {
    for chunk in [0, 4] {
        let (address, seen) = hub(chunk, &[], false);
        let dir = model();
        let files = plan(dir.path()).unwrap();
        let names: Vec<&str> = files.iter().map(|f| f.name.as_str()).collect();
        assert_eq!(names, ["config.json", "figures/loss.svg", "model.safetensors"]);
        let repository = "owner/nano".parse().unwrap();
        let pushed = push(&repository, &files, "First", false, &settings(&address), &|_, _| {}).unwrap();
        assert_eq!((pushed.files, pushed.sent, pushed.commit.as_deref()), (3, 10, Some("abc")));
        let seen = seen.lock().unwrap();
        let stored: BTreeMap<&str, String> = seen
            .iter()
            .filter(|r| r.method == "PUT")
            .map(|r| (r.path.rsplit('/').next().unwrap(), String::from_utf8(r.body.clone()).unwrap()))
            .collect();
        let parts: Vec<&str> = stored.values().map(String::as_str).collect();
        assert_eq!(parts, if chunk == 0 { vec!["0123456789"] } else { vec!["0123", "4567", "89"] });
        // Where files are kept is another's server: it does not see the token.
        assert!(seen.iter().all(|r| (r.method == "PUT") == r.authorization.is_none()), "{seen:?}");
        let commit = seen.iter().find(|r| r.path.contains("/commit/")).unwrap();
        let lines: Vec<Value> = commit
            .body
            .split(|&b| b == b'\n')
            .filter(|l| !l.is_empty())
            .map(|l| serde_json::from_slice(l).unwrap())
            .collect();
        assert_eq!(lines[0]["value"]["summary"], "First");
        assert_eq!((&lines[1]["key"], &lines[1]["value"]["content"]), (&json!("file"), &json!("e30=")));
        assert_eq!((&lines[3]["key"], &lines[3]["value"]["size"]), (&json!("lfsFile"), &json!(10)));
        assert_eq!(lines[3]["value"]["oid"], files[2].sha256.as_str());
        if chunk > 0 {
            let done = seen.iter().find(|r| r.method == "POST" && r.path.starts_with("/store/")).unwrap();
            let done: Value = serde_json::from_slice(&done.body).unwrap();
            assert_eq!(done["parts"][2], json!({ "partNumber": 3, "etag": "\"tag\"" }));
        }
    }
}

#[test]
fn what_the_hub_has_is_not_sent_again() {
    // SHA-256 of 0123456789.
    let (address, seen) =
        hub(0, &["84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882"], false);
    let dir = model();
    let files = plan(dir.path()).unwrap();
    let pushed =
        push(&"owner/nano".parse().unwrap(), &files, "Again", false, &settings(&address), &|_, _| {})
            .unwrap();
    assert_eq!((pushed.files, pushed.sent), (3, 0));
    assert!(seen.lock().unwrap().iter().all(|r| r.method != "PUT"));
}

/// The most memory that this process has had, in bytes.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[cfg(target_os = "linux")]
#[test]
fn a_large_file_is_sent_as_it_is_read_and_never_held_whole() {
    const SIZE: u64 = 192 << 20;
    let (address, seen) = hub(0, &[], false);
    let dir = model();
    fs::File::create(dir.path().join("model.safetensors")).unwrap().set_len(SIZE).unwrap();
    let files = plan(dir.path()).unwrap();
    let before = peak();
    let repository = "owner/nano".parse().unwrap();
    let pushed = push(&repository, &files, "First", false, &settings(&address), &|_, _| {}).unwrap();
    assert_eq!(pushed.sent, SIZE);
    let grown = peak() - before;
    assert!(grown < SIZE / 2, "{grown} bytes more for {SIZE} bytes sent");
    // In one piece of a stated length, as storage wants it.
    let seen = seen.lock().unwrap();
    let lengths: Vec<u64> = seen.iter().filter(|r| r.method == "PUT").map(|r| r.length).collect();
    assert_eq!(lengths, [SIZE]);
}

#[test]
fn a_file_that_is_cut_short_meanwhile_is_named() {
    let (address, _) = hub(0, &[], false);
    let dir = model();
    let files = plan(dir.path()).unwrap();
    fs::write(dir.path().join("model.safetensors"), "01234").unwrap();
    let repository = "owner/nano".parse().unwrap();
    let error = push(&repository, &files, "First", false, &settings(&address), &|_, _| {}).unwrap_err();
    assert!(matches!(error, HubError::Local { .. }), "{error}");
    assert!(error.to_string().contains("model.safetensors"), "{error}");
}

#[test]
fn a_hub_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        // Connections stay open, and nothing comes.
        let _open: Vec<_> = listener.incoming().collect();
    });
    let (done, ended) = mpsc::channel();
    thread::spawn(move || {
        let dir = model();
        let files = plan(dir.path()).unwrap();
        let settings = Settings { patience: Duration::from_millis(100), ..settings(&address) };
        let repository = "owner/nano".parse().unwrap();
        done.send(push(&repository, &files, "First", false, &settings, &|_, _| {})).unwrap();
    });
    let error = ended.recv_timeout(Duration::from_secs(20)).expect("it does not wait for ever").unwrap_err();
    assert!(matches!(error, HubError::Unavailable { .. }), "{error}");
}

#[test]
fn a_refusal_is_told_with_the_hubs_words() {
    let (address, _) = hub(0, &[], true);
    let dir = model();
    let files = plan(dir.path()).unwrap();
    let repository = "owner/nano".parse().unwrap();
    let error = push(&repository, &files, "First", false, &settings(&address), &|_, _| {}).unwrap_err();
    assert!(matches!(error, HubError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("no right to write"), "{error}");
    assert!(plan(&dir.path().join("nowhere")).is_err());
}
