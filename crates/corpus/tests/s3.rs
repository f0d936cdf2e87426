//! kl3m-data's layout in a bucket. `scripts/test_s3.py` starts a real S3 server and runs all of it; the servers that fail
//! on purpose are in here.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]
#![cfg(feature = "s3")]
use blackletter_corpus::kl3m_data::{
    Kl3mDataError, Stage, Store, StoreOptions, index_key,
    parquet::TokenRecord,
    records::{Index, SourceDocument},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

fn options(endpoint: String, retries: usize) -> StoreOptions {
    StoreOptions {
        endpoint: Some(endpoint),
        requester_pays: true,
        timeout: Duration::from_millis(400),
        retries,
    }
}

/// The head of a request.
fn head(stream: &mut TcpStream) -> String {
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap_or(0) > 0 {
        text.push(byte[0]);
    }
    String::from_utf8_lossy(&text).to_lowercase()
}

/// A server that fails `failures` times, then serves every key as `body`; and the requests that it got.
fn flaky(failures: usize, body: &'static str) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let requests = Arc::new(Mutex::new(Vec::new()));
    let seen = requests.clone();
    thread::spawn(move || {
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            seen.lock().unwrap().push(head(&mut stream));
            let (status, body) = if n < failures { ("503 Slow Down", "") } else { ("200 OK", body) };
            let length = body.len();
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nLast-Modified: Mon, 02 Jan 2006 15:04:05 GMT\r\n\
                 ETag: \"1\"\r\nConnection: close\r\n\r\n{body}"
            );
        }
    });
    (endpoint, requests)
}

#[test]
fn a_server_that_fails_now_and_then_is_asked_again_and_told_who_pays() {
    let (endpoint, requests) = flaky(2, "bytes");
    let store = Store::open("s3://bucket/some/prefix", &options(endpoint, 5)).unwrap();
    assert_eq!(store.get("documents/usc/1.json").unwrap(), b"bytes");
    let requests = requests.lock().unwrap();
    assert_eq!(requests.len(), 3);
    for request in requests.iter() {
        assert!(request.starts_with("get /bucket/some/prefix/documents/usc/1.json "), "{request}");
        assert!(request.contains("x-amz-request-payer: requester"), "{request}");
    }
}

#[test]
fn a_server_that_always_fails_is_given_up_with_the_object_named() {
    let (endpoint, requests) = flaky(usize::MAX, "");
    let store = Store::open("s3://bucket", &options(endpoint, 2)).unwrap();
    let error = store.get("documents/usc/1.json").unwrap_err().to_string();
    assert!(error.starts_with("cannot read documents/usc/1.json in s3://bucket"), "{error}");
    assert_eq!(requests.lock().unwrap().len(), 3);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    // Connections are taken by the system and never answered.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let store = Store::open("s3://bucket", &options(endpoint, 0)).unwrap();
    assert!(matches!(store.get("a"), Err(Kl3mDataError::Access { action: "read", .. })));
    assert!(matches!(store.list(""), Err(Kl3mDataError::Access { action: "list", .. })));
    assert!(matches!(store.put("a", b"x"), Err(Kl3mDataError::Access { action: "write", .. })));
}

/// What is left of an object of twelve pieces, slowly; after nine of them, the first time, nothing more comes.
fn slow(stream: &mut TcpStream, breaks_off: bool) {
    const PIECE: &[u8; 10] = b"0123456789";
    let request = head(stream);
    let from: usize = match request.split_once("range: bytes=") {
        Some((_, range)) => range.split('-').next().unwrap().parse().unwrap(),
        None => 0,
    };
    let (status, length) = (if from > 0 { "206 Partial Content" } else { "200 OK" }, 120 - from);
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-119/120\r\n\
         Last-Modified: Mon, 02 Jan 2006 15:04:05 GMT\r\nETag: \"1\"\r\nConnection: close\r\n\r\n"
    );
    for _ in from / 10..if breaks_off { 9 } else { 12 } {
        thread::sleep(Duration::from_millis(250));
        let _ = stream.write_all(PIECE).and_then(|()| stream.flush());
    }
    if breaks_off {
        thread::sleep(Duration::from_secs(4));
    }
}

#[test]
fn an_object_may_take_longer_than_the_timeout_and_is_gone_on_with_where_it_broke_off() {
    for (breaks_off, retries, requests) in [(false, 0, 1), (true, 1, 2)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(0));
        let count = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut seen = count.lock().unwrap();
                *seen += 1;
                let breaks_off = breaks_off && *seen == 1;
                thread::spawn(move || slow(&mut stream.unwrap(), breaks_off));
            }
        });
        let options = StoreOptions { timeout: Duration::from_secs(1), ..options(endpoint, retries) };
        let store = Store::open("s3://bucket", &options).unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Three seconds in all, and the first try alone is longer than all tries' timeouts.
        assert_eq!(store.copy("large", &dir.path().join("large")).unwrap(), 120);
        assert_eq!(std::fs::read(dir.path().join("large")).unwrap(), b"0123456789".repeat(12));
        assert_eq!(*seen.lock().unwrap(), requests);
    }
}

#[test]
fn a_server_that_is_not_there_is_given_up() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let store = Store::open("s3://bucket", &options(format!("http://{closed}"), 1)).unwrap();
    assert!(matches!(store.get("a"), Err(Kl3mDataError::Access { action: "read", .. })));
}

#[test]
fn an_address_without_a_bucket_is_refused() {
    let error = Store::open("s3:///prefix", &StoreOptions::default()).err().unwrap().to_string();
    assert!(error.contains("it names no bucket"), "{error}");
}

#[test]
fn the_stages_come_back_from_a_real_server() {
    let Ok(endpoint) = std::env::var("BLACKLETTER_TEST_S3") else {
        println!("skipped: BLACKLETTER_TEST_S3 names no server; scripts/test_s3.py starts one");
        return;
    };
    let options = StoreOptions { timeout: Duration::from_secs(20), ..options(endpoint, 3) };
    for location in ["s3://kl3m", "s3://kl3m/below"] {
        let store = Store::open(location, &options).unwrap();
        let metadata = serde_json::Map::from_iter([("title".to_string(), "Oil § 1".into())]);
        let document = SourceDocument { content: b"\0\xffbytes".to_vec(), metadata };
        let tokens =
            TokenRecord { identifier: "1".into(), representations: vec![("text/plain".into(), vec![7, 8])] };
        let keys: Vec<String> =
            (0..1100).map(|n| Stage::Representations.key("usc", &format!("t/{n:04}"))).collect();
        let index = Index { objects: keys.clone(), ..Index::default() };
        store.put(&Stage::Documents.key("usc", "t/1"), &document.to_json().unwrap()).unwrap();
        store.put(&Stage::Parquet.key("usc", "t/1"), &tokens.to_bytes().unwrap()).unwrap();
        store.put(&index_key("usc"), &index.to_bytes().unwrap()).unwrap();
        // More than one page of a listing.
        for key in &keys {
            store.put(key, b"{}").unwrap();
        }
        let read = store.get(&Stage::Documents.key("usc", "t/1")).unwrap();
        assert_eq!(SourceDocument::from_json(&read).unwrap(), document);
        let read = store.get(&Stage::Parquet.key("usc", "t/1")).unwrap();
        assert_eq!(TokenRecord::from_bytes(&read).unwrap(), tokens);
        assert_eq!(Index::from_bytes(&store.get(&index_key("usc")).unwrap()).unwrap(), index);
        assert_eq!(store.list(&Stage::Representations.prefix("usc")).unwrap(), keys);
        assert!(matches!(store.get("documents/usc/none.json"), Err(Kl3mDataError::Missing { .. })));
        // More than one part of what is sent.
        let large: Vec<u8> = (0..(20u32 << 20)).map(|n| (n % 251) as u8).collect();
        store.put("data/train-00000.parquet", &large).unwrap();
        assert!(store.get("data/train-00000.parquet").unwrap() == large);
    }
}
