//! A server on this machine that speaks the Hub's file protocol, and can be told to misbehave.

use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

/// What the server has and how it behaves.
#[derive(Default)]
pub struct Behaviour {
    pub files: BTreeMap<String, Vec<u8>>,
    /// Closes the connection after so many bytes of a file, once for each entry.
    pub cuts: Vec<(String, usize)>,
    /// Answers every request for content with that status, so many times.
    pub failures: Vec<u16>,
    /// The token that it takes to see anything.
    pub token: Option<String>,
    /// The status for whoever has no such token.
    pub refusal: u16,
    /// Sends whole files whatever part is asked for.
    pub ignores_ranges: bool,
    /// Sends these bytes in place of a file's own, of which it states hash and size.
    pub sends: BTreeMap<String, Vec<u8>>,
    /// Large files lie at another address: the first answer is a redirection.
    pub redirects: bool,
    /// Answers every request with that status; 0 is none: the connection stays open and nothing comes.
    pub down: Option<u16>,
    pub log: Vec<Request>,
}

/// The server; it ends with the test's process.
pub struct Server {
    pub address: String,
    pub behaviour: Arc<Mutex<Behaviour>>,
}

impl Server {
    pub fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let shared = Arc::clone(&behaviour);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                // A client that goes away in the middle is part of the tests.
                thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, behaviour }
    }

    /// The requests so far whose path ends so.
    pub fn requests(&self, method: &str, end: &str) -> Vec<Request> {
        let behaviour = self.behaviour.lock().unwrap();
        behaviour.log.iter().filter(|r| r.method == method && r.path.ends_with(end)).cloned().collect()
    }
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Large files are named by SHA-256, small ones by a git hash; any 40 digits do.
pub fn hash(name: &str, bytes: &[u8]) -> String {
    let hash = sha256(bytes);
    if name.ends_with(".safetensors") { hash } else { hash[..40].to_string() }
}

/// One connection, one request.
fn serve(stream: TcpStream, shared: &Mutex<Behaviour>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or("").to_string(), words.next().unwrap_or("").to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim().split_once(':') {
            Some((name, value)) => drop(headers.insert(name.to_ascii_lowercase(), value.trim().to_string())),
            None => break,
        }
    }
    let request = Request {
        method,
        path: path.split('?').next().unwrap_or("").to_string(),
        range: headers.remove("range"),
        authorization: headers.remove("authorization"),
    };
    if shared.lock().unwrap().down == Some(0) {
        thread::sleep(Duration::from_secs(60));
        return Ok(());
    }
    let answer = answer(&request, &mut shared.lock().unwrap());
    let mut out = stream;
    let (status, headers, body, cut) = answer;
    let length = body.len();
    write!(out, "HTTP/1.1 {status} X\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n")?;
    if request.method != "HEAD" {
        out.write_all(&body[..cut.unwrap_or(length).min(length)])?;
    }
    out.flush()
}

type Answer = (u16, String, Vec<u8>, Option<usize>);

fn answer(request: &Request, behaviour: &mut Behaviour) -> Answer {
    behaviour.log.push(request.clone());
    let refused = |status: u16| (status, String::new(), b"{\"error\": \"no\"}".to_vec(), None);
    if let Some(status) = behaviour.down {
        return refused(status);
    }
    if let Some(token) = &behaviour.token
        && request.authorization.as_deref() != Some(&format!("Bearer {token}"))
        && !request.path.starts_with("/elsewhere/")
    {
        return refused(behaviour.refusal);
    }
    if request.path == "/api/models/owner/model/revision/main" {
        let siblings: Vec<String> =
            behaviour.files.keys().map(|f| format!("{{\"rfilename\": \"{f}\"}}")).collect();
        let body = format!(
            "{{\"id\": \"owner/model\", \"sha\": \"{COMMIT}\", \"siblings\": [{}]}}",
            siblings.join(",")
        );
        return (200, "Content-Type: application/json\r\n".into(), body.into_bytes(), None);
    }
    let home = format!("/owner/model/resolve/{COMMIT}/");
    let (name, home) = match (request.path.strip_prefix(&home), request.path.strip_prefix("/elsewhere/")) {
        (Some(name), _) => (name.to_string(), true),
        (None, Some(name)) => (name.to_string(), false),
        _ => return refused(404),
    };
    let Some(bytes) = behaviour.files.get(&name).cloned() else { return refused(404) };
    if request.method == "GET" && !behaviour.failures.is_empty() {
        return refused(behaviour.failures.remove(0));
    }
    let (hash, size) = (hash(&name, &bytes), bytes.len());
    if behaviour.redirects && home && name.ends_with(".safetensors") {
        let headers = format!(
            "Location: /elsewhere/{name}\r\nETag: \"of-the-redirection\"\r\nX-Repo-Commit: {COMMIT}\r\n\
             X-Linked-ETag: \"{hash}\"\r\nX-Linked-Size: {size}\r\n"
        );
        return (302, headers, b"moved".to_vec(), None);
    }
    let sent = behaviour.sends.get(&name).filter(|_| request.method == "GET");
    let bytes = sent.cloned().unwrap_or(bytes);
    let mut headers = format!("ETag: \"{hash}\"\r\nX-Repo-Commit: {COMMIT}\r\nAccept-Ranges: bytes\r\n");
    let start =
        request.range.as_deref().and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    let (status, body) = match start.filter(|_| !behaviour.ignores_ranges) {
        Some(start) if start < size => {
            headers.push_str(&format!("Content-Range: bytes {start}-{}/{size}\r\n", size - 1));
            (206, bytes[start..].to_vec())
        }
        _ => (200, bytes),
    };
    let cut = behaviour.cuts.iter().position(|(file, _)| request.method == "GET" && *file == name);
    let cut = cut.map(|i| behaviour.cuts.remove(i).1);
    (status, headers, body, cut)
}
