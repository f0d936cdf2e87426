//! A server on a free port, and a client that shows all that comes back.

use blackletter_engine::{LoadOptions, ModelFiles, Pipeline};
use blackletter_server::{Settings, start};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::oneshot;

pub fn files() -> ModelFiles {
    ModelFiles::Directory(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../models/tiny"))
}

pub fn pipeline() -> Pipeline {
    Pipeline::load(&files(), &LoadOptions { dtype: None, threads: Some(2) }, true).unwrap()
}

/// A server for as long as it is held.
pub struct Server {
    pub address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let settings =
            Settings { address: SocketAddr::from(([127, 0, 0, 1], 0)), model: "tiny".into(), ..settings };
        let (end, ended) = oneshot::channel::<()>();
        let (started, address) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
            runtime.block_on(async {
                let running = start(settings, pipeline(), &files()).await.unwrap();
                started.send(running.address).unwrap();
                running.until(async move { drop(ended.await) }).await;
            });
        });
        Self { address: address.recv().unwrap(), end: Some(end), thread: Some(thread) }
    }

    /// Tells the server to end, without waiting for it.
    pub fn end(&mut self) {
        drop(self.end.take());
    }

    pub fn has_ended(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    /// Sends bytes as they are.
    pub fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // The server may have had enough before all is sent.
        let _ = stream.write_all(bytes);
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        Reply::of(&all)
    }

    pub fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        self.raw(&[head.as_bytes(), body].concat())
    }

    pub fn get(&self, path: &str) -> Reply {
        self.send("GET", path, "", b"")
    }

    pub fn post(&self, path: &str, body: &Value) -> Reply {
        self.send("POST", path, "content-type: application/json\r\n", body.to_string().as_bytes())
    }

    pub fn complete(&self, body: &Value) -> Value {
        let reply = self.post("/v1/completions", body);
        assert_eq!(reply.status, 200, "{body}: {}", reply.text());
        reply.json()
    }

    pub fn text(&self, body: &Value) -> String {
        self.complete(body)["choices"][0]["text"].as_str().unwrap().to_string()
    }

    /// A figure of `/metrics`.
    pub fn health(&self, name: &str) -> u64 {
        self.get("/health").json()[name].as_u64().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Reply {
    fn of(all: &[u8]) -> Self {
        let end = all.windows(4).position(|w| w == b"\r\n\r\n").map_or(all.len(), |at| at + 4);
        let head = String::from_utf8_lossy(&all[..end]).to_lowercase();
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let mut body = all[end..].to_vec();
        if head.contains("transfer-encoding: chunked") {
            body = unchunk(&body);
        }
        Self { status, head, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(": "))
    }

    /// Checks that this is a refusal in the one shape that refusals have.
    pub fn refused(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.header("content-type"), Some("application/json"));
        let body = self.json();
        let error = body["error"].as_object().unwrap();
        assert_eq!(error.keys().collect::<Vec<_>>(), ["message", "type", "param", "code"]);
        assert!(error["message"].is_string() && error["type"].is_string(), "{body}");
        error.clone().into()
    }

    /// The events of a streamed answer, without the last, which says that it is.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.header("content-type"), Some("text/event-stream"));
        let text = self.text();
        let mut data: Vec<&str> = text.split("\n\n").filter_map(|e| e.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{text}");
        data.into_iter().map(|e| serde_json::from_str(e).unwrap()).collect()
    }
}

fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(line) = body.windows(2).position(|w| w == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..line]).unwrap().trim(), 16).unwrap();
        if size == 0 || body.len() < line + 2 + size {
            break;
        }
        out.extend_from_slice(&body[line + 2..line + 2 + size]);
        body = &body[(line + 4 + size).min(body.len())..];
    }
    out
}

/// A request for a text that goes on for a while.
pub fn long(seed: u64) -> Value {
    json!({ "prompt": "Under this", "max_tokens": 900, "seed": seed, "temperature": 1.5, "logit_bias": { "1": -100 } })
}
