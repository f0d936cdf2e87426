//! Fetching models from a server of our own on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::type_complexity)]

mod server;

use base64::{Engine, engine::general_purpose::STANDARD};
use blackletter_hub::{Fetched, HubError, Repository, Settings, fetch};
use server::{Behaviour, COMMIT, Server, hash};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tempfile::TempDir;

fn weights() -> Vec<u8> {
    (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn files() -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        ("config.json".into(), b"{}".to_vec()),
        ("tokenizer.json".into(), b"{\"model\": {}}".to_vec()),
        ("README.md".into(), b"# A model\n".to_vec()),
        ("model.safetensors".into(), weights()),
        ("pytorch_model.bin".into(), b"not wanted".to_vec()),
        (".gitattributes".into(), b"not wanted".to_vec()),
    ])
}

fn behaving() -> Behaviour {
    Behaviour { files: files(), ..Behaviour::default() }
}

fn settings(server: &Server, cache: &TempDir) -> Settings {
    Settings {
        endpoint: Some(server.address.clone()),
        token: Some("secret".into()),
        cache_dir: Some(cache.path().into()),
        offline: false,
        patience: Duration::from_secs(20),
    }
}

fn repository() -> Repository {
    "owner/model".parse().unwrap()
}

fn get(server: &Server, cache: &TempDir) -> Result<Fetched, HubError> {
    fetch(&repository(), &settings(server, cache))
}

fn blob(cache: &TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    cache.path().join("models--owner--model/blobs").join(hash(name, bytes))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_a_model_takes_is_fetched_into_the_standard_cache() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(dir, cache.path().join("models--owner--model/snapshots").join(COMMIT));
    assert_eq!(names(&dir), ["README.md", "config.json", "model.safetensors", "tokenizer.json"]);
    for (name, bytes) in files().iter().filter(|(name, _)| dir.join(name).exists()) {
        assert_eq!(&fs::read(dir.join(name)).unwrap(), bytes, "{name}");
        assert_eq!(
            fs::canonicalize(dir.join(name)).unwrap(),
            fs::canonicalize(blob(&cache, name, bytes)).unwrap()
        );
    }
    assert_eq!(fs::read_to_string(cache.path().join("models--owner--model/refs/main")).unwrap(), COMMIT);
}

#[test]
fn the_token_is_sent_with_every_request() {
    let protected = Behaviour { token: Some("secret".into()), refusal: 401, ..behaving() };
    let (server, cache) = (Server::start(protected), TempDir::new().unwrap());
    get(&server, &cache).unwrap();
    let log = server.behaviour.lock().unwrap().log.clone();
    assert!(
        log.len() > 4 && log.iter().all(|r| r.authorization.as_deref() == Some("Bearer secret")),
        "{log:?}"
    );
}

#[test]
fn a_second_run_asks_for_the_commit_and_nothing_else() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    get(&server, &cache).unwrap();
    let before = server.behaviour.lock().unwrap().log.len();
    get(&server, &cache).unwrap();
    assert_eq!(server.behaviour.lock().unwrap().log.len(), before + 1);
}

#[test]
fn offline_the_cache_is_enough_and_what_is_not_there_is_told() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    let before = server.behaviour.lock().unwrap().log.len();
    let offline = Settings { offline: true, ..settings(&server, &cache) };
    assert_eq!(fetch(&repository(), &offline).unwrap().dir, dir);
    let pinned: Repository = format!("owner/model@{COMMIT}").parse().unwrap();
    assert_eq!(fetch(&pinned, &offline).unwrap().dir, dir);
    let error = fetch(&"owner/other".parse().unwrap(), &offline).unwrap_err();
    assert!(
        matches!(error, HubError::Offline { .. }) && error.to_string().contains("HF_HUB_OFFLINE"),
        "{error}"
    );
    fs::remove_file(dir.join("model.safetensors")).unwrap();
    assert!(matches!(fetch(&repository(), &offline), Err(HubError::Offline { .. })), "half a model is none");
    assert_eq!(server.behaviour.lock().unwrap().log.len(), before);
}

#[test]
fn a_cut_connection_goes_on_where_it_broke() {
    let cuts = vec![("model.safetensors".into(), 100_000), ("model.safetensors".into(), 50_000)];
    let (server, cache) = (Server::start(Behaviour { cuts, ..behaving() }), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    let ranges: Vec<_> = server.requests("GET", "model.safetensors").into_iter().map(|r| r.range).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".into()), Some("bytes=150000-".into())]);
}

#[test]
fn an_interrupted_run_is_taken_up_by_the_next() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    let blob = blob(&cache, "model.safetensors", &weights());
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    fs::write(blob.with_added_extension("incomplete"), &weights()[..200_000]).unwrap();
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    let requests = server.requests("GET", "model.safetensors");
    assert_eq!(requests.len(), 1);
    assert_eq!(requests[0].range.as_deref(), Some("bytes=200000-"));
    assert!(!blob.with_added_extension("incomplete").exists());
}

#[test]
fn a_server_without_parts_sends_the_whole_again() {
    let cuts = vec![("model.safetensors".into(), 100_000)];
    let whole = Behaviour { cuts, ignores_ranges: true, ..behaving() };
    let (server, cache) = (Server::start(whole), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
}

#[test]
fn large_files_elsewhere_are_followed_to() {
    let (server, cache) =
        (Server::start(Behaviour { redirects: true, ..behaving() }), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("model.safetensors")).unwrap(), weights());
    assert_eq!(server.requests("GET", "/elsewhere/model.safetensors").len(), 1);
    assert!(blob(&cache, "model.safetensors", &weights()).is_file());
}

#[test]
fn a_connection_that_breaks_every_time_is_given_up_and_what_came_is_kept() {
    // Ten times a tenth, then nothing for ever.
    let mut cuts = vec![("model.safetensors".to_string(), 1_000); 3];
    cuts.extend(vec![("model.safetensors".to_string(), 0); 20]);
    let (server, cache) = (Server::start(Behaviour { cuts, ..behaving() }), TempDir::new().unwrap());
    let error = get(&server, &cache).unwrap_err();
    assert!(error.to_string().contains("broke off at 3000 of 300000 bytes"), "{error}");
    let partial = blob(&cache, "model.safetensors", &weights()).with_added_extension("incomplete");
    assert_eq!(fs::read(partial).unwrap(), weights()[..3_000]);
    assert!(!cache.path().join("models--owner--model/refs/main").exists(), "half a model has no name");
}

#[test]
fn damaged_content_is_deleted_and_told() {
    let mut damaged = weights();
    damaged[7] ^= 1;
    let sends = BTreeMap::from([("model.safetensors".to_string(), damaged)]);
    let (server, cache) = (Server::start(Behaviour { sends, ..behaving() }), TempDir::new().unwrap());
    let error = get(&server, &cache).unwrap_err();
    assert!(matches!(error, HubError::Damaged { .. }), "{error}");
    let blobs = names(&cache.path().join("models--owner--model/blobs"));
    assert_eq!(blobs.len(), 3, "config, tokenizer and card alone: {blobs:?}");
}

#[test]
fn a_file_shorter_or_longer_than_stated_is_never_taken_for_whole() {
    for bytes in [weights()[..1_000].to_vec(), [weights(), vec![0; 10]].concat()] {
        let sends = BTreeMap::from([("model.safetensors".to_string(), bytes)]);
        let wrong = Behaviour { sends, ignores_ranges: true, ..behaving() };
        let (server, cache) = (Server::start(wrong), TempDir::new().unwrap());
        let error = get(&server, &cache).unwrap_err();
        assert!(matches!(error, HubError::Broken { size: 300_000, .. }), "{error}");
        assert!(!blob(&cache, "model.safetensors", &weights()).exists());
    }
}

#[test]
fn a_server_in_trouble_is_asked_again() {
    let (server, cache) =
        (Server::start(Behaviour { failures: vec![503, 500], ..behaving() }), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("config.json")).unwrap(), b"{}");
    assert_eq!(server.requests("GET", "config.json").len(), 3);
}

#[test]
fn refusals_say_what_to_do() {
    for (status, hint) in
        [(401, "HF_TOKEN"), (403, "accept its terms"), (404, "check owner, name and revision")]
    {
        let refusing = Behaviour { token: Some("another".into()), refusal: status, ..behaving() };
        let (server, cache) = (Server::start(refusing), TempDir::new().unwrap());
        let error = get(&server, &cache).unwrap_err().to_string();
        assert!(error.contains("owner/model") && error.contains(hint), "{status}: {error}");
        assert!(error.contains(&status.to_string()), "{status}: {error}");
    }
}

#[test]
fn a_hub_that_cannot_be_reached_is_no_matter_once_the_model_is_there() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    let nobody = Settings { endpoint: Some("http://127.0.0.1:1".into()), ..settings(&server, &cache) };
    let fetched = fetch(&repository(), &nobody).unwrap();
    assert_eq!(fetched.dir, dir);
    assert!(matches!(fetched.unchecked, Some(HubError::Unreachable { .. })));
    let error = fetch(&"owner/other".parse().unwrap(), &nobody).unwrap_err();
    assert!(error.to_string().contains("cannot reach http://127.0.0.1:1"), "{error}");
}

#[test]
fn a_hub_in_trouble_is_no_matter_once_the_model_is_there() {
    let in_trouble = |status: u16| {
        let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
        let dir = get(&server, &cache).unwrap().dir;
        server.behaviour.lock().unwrap().down = Some(status);
        let settings = settings(&server, &cache);
        // With retries of a server in trouble, a status needs longer than silence.
        let patience = if status == 0 { Duration::from_secs(1) } else { settings.patience };
        let settings = Settings { patience, ..settings };
        let fetched = fetch(&repository(), &settings).unwrap();
        assert_eq!(fetched.dir, dir);
        let why = fetched.unchecked.expect("nobody said that there is no newer one").to_string();
        let reason = if status == 0 { "no answer for 1 seconds".into() } else { status.to_string() };
        assert!(why.contains(&reason) && why.contains("owner/model"), "{status}: {why}");
        let none = fetch(&"owner/other".parse().unwrap(), &settings).unwrap_err();
        assert!(none.to_string().contains("try again later"), "{status}: {none}");
    };
    // They wait more than they work.
    std::thread::scope(|scope| {
        for status in [408, 429, 500, 503, 0] {
            scope.spawn(move || in_trouble(status));
        }
    });
}

#[test]
fn a_download_that_the_hub_cannot_serve_falls_back_to_the_model_of_before() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    // A file that has come since, which the server announces and cannot send.
    let mut behaviour = server.behaviour.lock().unwrap();
    behaviour.files.insert("LICENSE".into(), b"CC0".to_vec());
    behaviour.failures = vec![503; 20];
    drop(behaviour);
    let fetched = get(&server, &cache).unwrap();
    assert_eq!(fetched.dir, dir);
    assert!(matches!(fetched.unchecked, Some(HubError::Unavailable { .. })));
}

#[test]
fn shards_are_found_through_their_index() {
    let index = br#"{"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}"#;
    let files = BTreeMap::from([
        ("config.json".to_string(), b"{}".to_vec()),
        ("model.safetensors.index.json".into(), index.to_vec()),
        ("model-00001-of-00002.safetensors".into(), b"one".to_vec()),
        ("model-00002-of-00002.safetensors".into(), b"two".to_vec()),
        ("model-00003-of-00003.safetensors".into(), b"of another time".to_vec()),
    ]);
    let (server, cache) =
        (Server::start(Behaviour { files: files.clone(), ..Behaviour::default() }), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    assert_eq!(fs::read(dir.join("model-00002-of-00002.safetensors")).unwrap(), b"two");
    assert!(!dir.join("model-00003-of-00003.safetensors").exists());
    let mut lacking = files;
    lacking.remove("model-00002-of-00002.safetensors");
    let (server, cache) =
        (Server::start(Behaviour { files: lacking, ..Behaviour::default() }), TempDir::new().unwrap());
    let error = get(&server, &cache).unwrap_err().to_string();
    assert!(error.contains("model-00002-of-00002.safetensors, which is not there"), "{error}");
}

#[test]
fn what_a_record_and_a_signature_cover_is_fetched_and_nothing_else() {
    let record = r#"{"files": [{"path": "model.safetensors"}, {"path": "corpus.toml"}, {"path": "figures/2026/loss.svg"},
        {"path": "lost.txt"}, {"path": ".hidden"}, {"path": "../up"}, {"path": "/etc/passwd"}, {"path": 7}, "x"]}"#;
    let statement =
        r#"{"predicate": {"resources": [{"name": "provenance.json"}, {"name": "notes.txt:0:9"}]}}"#;
    let signature = format!(r#"{{"dsseEnvelope": {{"payload": "{}"}}}}"#, STANDARD.encode(statement));
    let mut files = files();
    for (name, content) in [
        ("provenance.json", record),
        ("model.sig", &signature),
        ("corpus.toml", "[build]"),
        ("figures/2026/loss.svg", "<svg/>"),
        ("notes.txt", "signed"),
        ("train.py", "not covered"),
        (".hidden", "not a name"),
    ] {
        files.insert(name.into(), content.into());
    }
    let (server, cache) =
        (Server::start(Behaviour { files: files.clone(), ..Behaviour::default() }), TempDir::new().unwrap());
    let dir = get(&server, &cache).unwrap().dir;
    let expected = [
        "README.md",
        "config.json",
        "corpus.toml",
        "figures",
        "model.safetensors",
        "model.sig",
        "notes.txt",
        "provenance.json",
        "tokenizer.json",
    ];
    assert_eq!(names(&dir), expected);
    for name in ["corpus.toml", "figures/2026/loss.svg", "notes.txt"] {
        assert_eq!(fs::read(dir.join(name)).unwrap(), files[name], "{name}");
        let stored = fs::canonicalize(blob(&cache, name, &files[name])).unwrap();
        assert_eq!(fs::canonicalize(dir.join(name)).unwrap(), stored);
    }
    // A record that is none keeps nobody from the model.
    files.insert("provenance.json".into(), b"{\"files\": 3".to_vec());
    files.insert("model.sig".into(), b"[]".to_vec());
    let (server, cache) =
        (Server::start(Behaviour { files, ..Behaviour::default() }), TempDir::new().unwrap());
    assert!(!get(&server, &cache).unwrap().dir.join("corpus.toml").exists());
}

#[test]
fn a_repository_without_safetensors_is_refused_before_anything_is_fetched() {
    let files =
        BTreeMap::from([("config.json".into(), b"{}".to_vec()), ("pytorch_model.bin".into(), vec![0; 9])]);
    let (server, cache) =
        (Server::start(Behaviour { files, ..Behaviour::default() }), TempDir::new().unwrap());
    let error = get(&server, &cache).unwrap_err().to_string();
    assert!(error.contains("safetensors") && error.contains("pytorch_model.bin"), "{error}");
    assert!(names(cache.path()).is_empty());
}

#[test]
fn a_cache_that_cannot_be_written_is_told_with_another_way() {
    let (server, cache) = (Server::start(behaving()), TempDir::new().unwrap());
    // A file where a directory should be refuses even those who may do everything.
    fs::write(cache.path().join("models--owner--model"), b"").unwrap();
    let error = get(&server, &cache).unwrap_err();
    assert!(matches!(error, HubError::Cache { .. }) && error.to_string().contains("HF_HUB_CACHE"), "{error}");
}
