//! Signatures of models in the form of [OpenSSF Model Signing 1.0](https://github.com/sigstore/model-transparency), private-key
//! method: a Sigstore bundle around a DSSE envelope around an in-toto statement that lists the digest of every file.
//!
//! Keys are elliptic: P-256, P-384 or P-521, in PEM, as `openssl ecparam -genkey -name prime256v1` makes them.

use aws_lc_rs::{
    digest,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1,
        ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING, EcdsaKeyPair,
        KeyPair, UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// The signature's usual name in a model's directory.
pub const SIGNATURE_FILE: &str = "model.sig";

const BUNDLE_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE: &str = "https://model_signing/signature/v1.0";
/// What is never signed.
const IGNORED: [&str; 5] = [SIGNATURE_FILE, ".git", ".gitattributes", ".github", ".gitignore"];
/// Files are hashed in pieces of this many bytes.
const PIECE: usize = 1 << 20;

/// A model cannot be signed, or its signature does not hold.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link would let what is signed lie elsewhere.
    #[error("{0} is a symbolic link; sign a directory that holds the files themselves")]
    Link(PathBuf),
    /// The key is none.
    #[error("{0}")]
    Key(String),
    /// The system gives no randomness, or the key does not sign.
    #[error("the key does not sign")]
    Sign,
    /// The bundle is none.
    #[error("this is no signature of OpenSSF Model Signing by private key: {0}")]
    Bundle(String),
    /// Made with another key.
    #[error("the signature was made with another key: its key has the hash {found}, this one {given}")]
    OtherKey {
        /// In the bundle.
        found: String,
        /// Of the key that was given.
        given: String,
    },
    /// The signature does not belong to what it stands beside.
    #[error("the signature is not valid: the list of digests was changed after it was signed")]
    Invalid,
    /// Files differ from what was signed.
    #[error("the model is not the one that was signed:\n{}", .0.join("\n"))]
    Differs(Vec<String>),
}

/// A signature that holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The model's name when it was signed.
    pub model: String,
    /// Files or pieces of files that were compared.
    pub resources: usize,
    /// SHA-256 over all digests, in hexadecimal: stands for the whole model.
    pub digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

const CURVES: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

impl Curve {
    /// DER of `SubjectPublicKeyInfo` up to the point (RFC 5480): algorithm id-ecPublicKey with the named curve.
    fn header(self) -> &'static [u8] {
        match self {
            Self::P256 => &[
                0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
                0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
            ],
            Self::P384 => &[
                0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05,
                0x2b, 0x81, 0x04, 0x00, 0x22, 0x03, 0x62, 0x00,
            ],
            Self::P521 => &[
                0x30, 0x81, 0x9b, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
                0x05, 0x2b, 0x81, 0x04, 0x00, 0x23, 0x03, 0x81, 0x86, 0x00,
            ],
        }
    }

    fn verifies(self, point: &[u8], message: &[u8], signature: &[u8]) -> bool {
        let algorithm = match self {
            Self::P256 => &ECDSA_P256_SHA256_ASN1,
            Self::P384 => &ECDSA_P384_SHA384_ASN1,
            Self::P521 => &ECDSA_P521_SHA512_ASN1,
        };
        UnparsedPublicKey::new(algorithm, point).verify(message, signature).is_ok()
    }
}

/// A public key: `SubjectPublicKeyInfo` in DER.
struct PublicKey {
    der: Vec<u8>,
    curve: Curve,
}

impl PublicKey {
    fn from_point(curve: Curve, point: &[u8]) -> Self {
        Self { der: [curve.header(), point].concat(), curve }
    }

    fn from_pem(pem: &str) -> Result<Self, SignatureError> {
        let (label, der) = from_pem(pem).ok_or_else(|| SignatureError::Key("the key is not PEM".into()))?;
        if label != "PUBLIC KEY" {
            let what = format!("the key is of kind `{label}`, and a public key is needed (`PUBLIC KEY`)");
            return Err(SignatureError::Key(what));
        }
        let curve = CURVES.into_iter().find(|curve| der.starts_with(curve.header()));
        let curve = curve.ok_or_else(|| {
            SignatureError::Key("the key is not on P-256, P-384 or P-521, or not in the usual form".into())
        })?;
        Ok(Self { der, curve })
    }

    /// What a bundle names the key by: SHA-256 of its PEM, as OpenSSL writes it.
    fn hint(&self) -> String {
        let mut pem = String::from("-----BEGIN PUBLIC KEY-----\n");
        let text = STANDARD.encode(&self.der);
        for line in text.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END PUBLIC KEY-----\n");
        hex(digest::digest(&digest::SHA256, pem.as_bytes()).as_ref())
    }
}

/// The label and bytes of the first PEM block that is a key, not the parameters of its curve.
fn from_pem(pem: &str) -> Option<(String, Vec<u8>)> {
    let mut lines = pem.lines().map(str::trim);
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("-----BEGIN ").and_then(|l| l.strip_suffix("-----")) else {
            continue;
        };
        let body: Vec<&str> = lines.by_ref().take_while(|line| !line.starts_with("-----END ")).collect();
        if label == "EC PARAMETERS" {
            continue;
        }
        // Headers such as `Proc-Type` stand before what is encrypted.
        let text: String = body.into_iter().filter(|line| !line.contains(':')).collect();
        return Some((label.to_owned(), STANDARD.decode(text).ok()?));
    }
    None
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn key_pair(pem: &str) -> Result<(EcdsaKeyPair, PublicKey), SignatureError> {
    let key = |what: &str| SignatureError::Key(what.into());
    if pem.contains("ENCRYPTED") {
        return Err(key(
            "the key is protected by a password: take that off first, as `openssl ec -in KEY -out PLAIN` does",
        ));
    }
    let (label, der) = from_pem(pem).ok_or_else(|| key("the key is not PEM"))?;
    if !label.ends_with("PRIVATE KEY") {
        return Err(key("a private key is needed (`PRIVATE KEY` or `EC PRIVATE KEY`)"));
    }
    let algorithms = [
        (Curve::P256, &ECDSA_P256_SHA256_ASN1_SIGNING),
        (Curve::P384, &ECDSA_P384_SHA384_ASN1_SIGNING),
        (Curve::P521, &ECDSA_P521_SHA512_ASN1_SIGNING),
    ];
    for (curve, algorithm) in algorithms {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(algorithm, &der) {
            let public = PublicKey::from_point(curve, pair.public_key().as_ref());
            return Ok((pair, public));
        }
    }
    Err(key("the key is no elliptic key on P-256, P-384 or P-521"))
}

/// How the files of a model are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    shard_size: Option<u64>,
    allow_symlinks: bool,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Resource {
    name: String,
    algorithm: String,
    digest: String,
}

#[derive(Deserialize)]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    name: String,
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    serialization: Serialization,
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    public_key: Option<Hint>,
}

#[derive(Deserialize)]
struct Hint {
    #[serde(default)]
    hint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<OneSignature>,
}

#[derive(Deserialize)]
struct OneSignature {
    sig: String,
}

/// What a DSSE signature covers (<https://github.com/secure-systems-lab/dsse/blob/v1.0.0/protocol.md>).
fn pae(payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {PAYLOAD_TYPE} {} ", PAYLOAD_TYPE.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// Signs the model in `folder`; gives the bundle, which belongs into [`SIGNATURE_FILE`].
///
/// # Errors
/// When a file cannot be read or is a link, or the key is no elliptic private key.
pub fn sign(folder: &Path, private_key_pem: &str) -> Result<String, SignatureError> {
    let (pair, public) = key_pair(private_key_pem)?;
    let serialization = Serialization {
        method: "files".into(),
        hash_type: "sha256".into(),
        shard_size: None,
        allow_symlinks: false,
        ignore_paths: IGNORED.map(str::to_owned).to_vec(),
    };
    let resources = resources(folder, &serialization)?;
    let name =
        folder.canonicalize().map_err(|source| SignatureError::Read { path: folder.into(), source })?;
    let name = name.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let statement = json!({
        "_type": STATEMENT_TYPE,
        "subject": [{ "name": name, "digest": { "sha256": root(&resources)? } }],
        "predicateType": PREDICATE_TYPE,
        "predicate": { "serialization": serialization, "resources": resources },
    });
    let payload = statement.to_string().into_bytes();
    let signature = pair.sign(&SystemRandom::new(), &pae(&payload)).map_err(|_| SignatureError::Sign)?;
    let bundle = json!({
        "mediaType": BUNDLE_TYPE,
        "verificationMaterial": { "publicKey": { "hint": public.hint() }, "tlogEntries": [] },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&payload),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [{ "sig": STANDARD.encode(signature.as_ref()), "keyid": "" }],
        },
    });
    Ok(format!("{bundle}\n"))
}

/// SHA-256 over the digests in their order.
fn root(resources: &[Resource]) -> Result<String, SignatureError> {
    let mut context = digest::Context::new(&digest::SHA256);
    for resource in resources {
        let text = &resource.digest;
        let bytes: Option<Vec<u8>> = (0..text.len())
            .step_by(2)
            .map(|at| text.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok()))
            .collect();
        context.update(&bytes.ok_or_else(|| SignatureError::Bundle("a digest is not hexadecimal".into()))?);
    }
    Ok(hex(context.finish().as_ref()))
}

/// Checks that the bundle was made with the key that belongs to `public_key_pem`, and that the model in `folder` is the one
/// that was signed: every file, and no other.
///
/// # Errors
/// When the signature does not hold, is of another kind, or files differ; each that differs is named.
pub fn verify(folder: &Path, bundle: &[u8], public_key_pem: &str) -> Result<Verified, SignatureError> {
    let wrong = |what: &str| SignatureError::Bundle(what.into());
    let key = PublicKey::from_pem(public_key_pem)?;
    let bundle: Bundle = serde_json::from_slice(bundle).map_err(|e| wrong(&e.to_string()))?;
    if bundle.media_type != BUNDLE_TYPE {
        return Err(wrong(&format!("its media type is {}", bundle.media_type)));
    }
    let hint = bundle.verification_material.public_key.ok_or_else(|| wrong("it names no public key"))?;
    let given = key.hint();
    if let Some(found) = hint.hint.filter(|found| !found.is_empty() && *found != given) {
        return Err(SignatureError::OtherKey { found, given });
    }
    let envelope = bundle.dsse_envelope;
    if envelope.payload_type != PAYLOAD_TYPE {
        return Err(wrong(&format!("its payload is of type {}", envelope.payload_type)));
    }
    let payload = STANDARD.decode(&envelope.payload).map_err(|_| wrong("its payload is not base64"))?;
    let [signature] = envelope.signatures.as_slice() else { return Err(wrong("it has not one signature")) };
    let signature = STANDARD.decode(&signature.sig).map_err(|_| wrong("its signature is not base64"))?;
    let point = &key.der[key.curve.header().len()..];
    if !key.curve.verifies(point, &pae(&payload), &signature) {
        return Err(SignatureError::Invalid);
    }
    let statement: Statement = serde_json::from_slice(&payload).map_err(|e| wrong(&e.to_string()))?;
    if statement.kind != STATEMENT_TYPE || statement.predicate_type != PREDICATE_TYPE {
        return Err(wrong(&format!("it states {} about {}", statement.predicate_type, statement.kind)));
    }
    let [subject] = statement.subject.as_slice() else { return Err(wrong("it has not one subject")) };
    let signed = statement.predicate.resources;
    let digest = root(&signed)?;
    if subject.digest.get("sha256") != Some(&digest) {
        return Err(wrong("its own digests do not make its root digest"));
    }
    let found = resources(folder, &statement.predicate.serialization)?;
    let differences = differences(&signed, &found);
    if !differences.is_empty() {
        return Err(SignatureError::Differs(differences));
    }
    Ok(Verified { model: subject.name.clone(), resources: signed.len(), digest })
}

fn differences(signed: &[Resource], found: &[Resource]) -> Vec<String> {
    let by_name = |list: &[Resource]| -> BTreeMap<String, String> {
        list.iter().map(|r| (r.name.clone(), r.digest.clone())).collect()
    };
    let (signed, found) = (by_name(signed), by_name(found));
    let mut lines = Vec::new();
    for (name, digest) in &signed {
        match found.get(name) {
            None => lines.push(format!("{name} was signed and is not there")),
            Some(now) if now != digest => {
                lines.push(format!("{name} was changed: its digest is {now}, not {digest}"));
            }
            Some(_) => {}
        }
    }
    for name in found.keys().filter(|name| !signed.contains_key(*name)) {
        lines.push(format!("{name} was not signed"));
    }
    lines
}

/// Whether a link is how the Hub's cache keeps a file: `snapshots/COMMIT/FILE` points into `blobs` beside `snapshots`.
fn is_cached(folder: &Path, path: &Path) -> bool {
    let Ok(folder) = folder.canonicalize() else { return false };
    let Some(snapshots) = folder.parent().filter(|parent| parent.ends_with("snapshots")) else {
        return false;
    };
    path.canonicalize().is_ok_and(|to| to.starts_with(snapshots.with_file_name("blobs")))
}

/// Every file of `folder` with its digest, or every piece of every file, in the order of their names.
fn resources(folder: &Path, how: &Serialization) -> Result<Vec<Resource>, SignatureError> {
    let shard = match (how.method.as_str(), how.shard_size) {
        ("files", _) => None,
        ("shards", Some(size)) if size > 0 => Some(size),
        (method, _) => return Err(SignatureError::Bundle(format!("it lists files by `{method}`"))),
    };
    let mut files = Vec::new();
    let mut left = vec![(folder.to_owned(), Vec::<String>::new())];
    while let Some((dir, parts)) = left.pop() {
        let failed = |source| SignatureError::Read { path: dir.clone(), source };
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            let parts = [parts.as_slice(), &[name]].concat();
            if how.ignore_paths.iter().any(|ignored| *ignored == parts.join("/")) {
                continue;
            }
            if !how.allow_symlinks && path.is_symlink() && !is_cached(folder, &path) {
                return Err(SignatureError::Link(path));
            }
            if path.is_dir() {
                left.push((path, parts));
            } else {
                files.push((parts, path));
            }
        }
    }
    // By parts, as paths are ordered in Python.
    files.sort();
    let mut resources = Vec::new();
    for (parts, path) in files {
        let name = parts.join("/");
        let failed = |source| SignatureError::Read { path: path.clone(), source };
        let size = fs::metadata(&path).map_err(failed)?.len();
        let whole = [(0, size)];
        let pieces: Vec<(u64, u64)> = match shard {
            None => whole.to_vec(),
            Some(shard) => {
                (0..size.div_ceil(shard)).map(|n| (n * shard, ((n + 1) * shard).min(size))).collect()
            }
        };
        for (from, to) in pieces {
            let digest = hash(&path, from, to, &how.hash_type).map_err(failed)?;
            let digest = digest.ok_or_else(|| {
                SignatureError::Bundle(format!(
                    "its digests are {}; read are sha256 and blake3",
                    how.hash_type
                ))
            })?;
            let name = if shard.is_some() { format!("{name}:{from}:{to}") } else { name.clone() };
            let algorithm = match shard {
                Some(shard) => format!("{}-sharded-{shard}", how.hash_type),
                None => how.hash_type.clone(),
            };
            resources.push(Resource { name, algorithm, digest });
        }
    }
    Ok(resources)
}

/// The digest of bytes `from..to` of a file; none for an algorithm that is not known.
fn hash(path: &Path, from: u64, to: u64, algorithm: &str) -> io::Result<Option<String>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(from))?;
    let mut file = file.take(to - from);
    let mut piece = vec![0; PIECE];
    let mut sha256 = digest::Context::new(&digest::SHA256);
    let mut blake3 = blake3::Hasher::new();
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        match algorithm {
            "sha256" => sha256.update(&piece[..read]),
            "blake3" => drop(blake3.update(&piece[..read])),
            _ => return Ok(None),
        }
    }
    Ok(match algorithm {
        "sha256" => Some(hex(sha256.finish().as_ref())),
        "blake3" => Some(blake3.finalize().to_hex().to_string()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `openssl ecparam -genkey -name prime256v1 -noout`; it protects nothing.
    const PRIVATE: &str = "-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIOuvJKCetMzv4B4L7/SGlXjdKS7hW4JPVDs4qDk0ns+0oAoGCCqGSM49
AwEHoUQDQgAEWF5e1uUdMb+ovLbGXNAA3DFo64RaK82HGyY9D1hrGW8nmt98cOop
a6RJz0yTiPyD5FOE74tmmpkkkAjjh5EAqA==
-----END EC PRIVATE KEY-----
";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEWF5e1uUdMb+ovLbGXNAA3DFo64Ra
K82HGyY9D1hrGW8nmt98cOopa6RJz0yTiPyD5FOE74tmmpkkkAjjh5EAqA==
-----END PUBLIC KEY-----
";
    /// Made by Python's `model_signing` 1.1.1 of a folder `m` with `a.txt` ("hello\n") and `d/b` ("x\n").
    const BY_PYTHON: &str = r#"{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{"publicKey":{"hint":"b96159c9cae08d39805acb55fb56f0cbc764e9fe8b33b0100cd74a79820d254b"},"tlogEntries":[]},"dsseEnvelope":{"payload":"ewogICJfdHlwZSI6ICJodHRwczovL2luLXRvdG8uaW8vU3RhdGVtZW50L3YxIiwKICAic3ViamVjdCI6IFsKICAgIHsKICAgICAgIm5hbWUiOiAibSIsCiAgICAgICJkaWdlc3QiOiB7CiAgICAgICAgInNoYTI1NiI6ICI1ZjQxZTk2ZDdiZDFkZDMzZjY1YTc0Yzk0M2JkNjI4ZWM4ZTc0Nzg3ZWI3ZTExNGNjYzY0Y2U2ODFlZWM0NDc5IgogICAgICB9CiAgICB9CiAgXSwKICAicHJlZGljYXRlVHlwZSI6ICJodHRwczovL21vZGVsX3NpZ25pbmcvc2lnbmF0dXJlL3YxLjAiLAogICJwcmVkaWNhdGUiOiB7CiAgICAicmVzb3VyY2VzIjogWwogICAgICB7CiAgICAgICAgImRpZ2VzdCI6ICI1ODkxYjViNTIyZDVkZjA4NmQwZmYwYjExMGZiZDlkMjFiYjRmYzcxNjNhZjM0ZDA4Mjg2YTJlODQ2ZjZiZTAzIiwKICAgICAgICAibmFtZSI6ICJhLnR4dCIsCiAgICAgICAgImFsZ29yaXRobSI6ICJzaGEyNTYiCiAgICAgIH0sCiAgICAgIHsKICAgICAgICAiZGlnZXN0IjogIjczY2IzODU4YTY4N2E4NDk0Y2EzMzIzMDUzMDE2MjgyZjNkYWQzOWQ0MmNmNjJjYTRlNzlkZGEyYWFjN2Q5YWMiLAogICAgICAgICJuYW1lIjogImQvYiIsCiAgICAgICAgImFsZ29yaXRobSI6ICJzaGEyNTYiCiAgICAgIH0KICAgIF0sCiAgICAic2VyaWFsaXphdGlvbiI6IHsKICAgICAgImhhc2hfdHlwZSI6ICJzaGEyNTYiLAogICAgICAibWV0aG9kIjogImZpbGVzIiwKICAgICAgImFsbG93X3N5bWxpbmtzIjogZmFsc2UsCiAgICAgICJpZ25vcmVfcGF0aHMiOiBbCiAgICAgICAgIm1vZGVsLnNpZyIsCiAgICAgICAgIi5naXRhdHRyaWJ1dGVzIiwKICAgICAgICAiLmdpdGh1YiIsCiAgICAgICAgIi5naXQiLAogICAgICAgICIuZ2l0aWdub3JlIgogICAgICBdCiAgICB9CiAgfQp9","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"MEQCIE57Ou4HkysaxtLPWd/xcg/Mu8QGLynZ5xYkzcWiohGQAiAP4H681z7Evbtm6TMif+6W3Ay42BeMKhUJr4UucI3lfA==","keyid":""}]}}"#;

    fn model() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("a.txt"), "hello\n").unwrap();
        fs::write(dir.path().join("d/b"), "x\n").unwrap();
        dir
    }

    #[test]
    fn a_signature_of_the_reference_implementation_holds() {
        let dir = model();
        let verified = verify(dir.path(), BY_PYTHON.as_bytes(), PUBLIC).unwrap();
        assert_eq!((verified.model.as_str(), verified.resources), ("m", 2));
    }

    #[test]
    fn a_signed_model_holds_until_a_byte_changes_and_then_the_file_is_named() {
        let dir = model();
        let bundle = sign(dir.path(), PRIVATE).unwrap();
        fs::write(dir.path().join(SIGNATURE_FILE), &bundle).unwrap();
        verify(dir.path(), bundle.as_bytes(), PUBLIC).unwrap();
        fs::write(dir.path().join("d/b"), "y\n").unwrap();
        fs::write(dir.path().join("new"), "").unwrap();
        let error = verify(dir.path(), bundle.as_bytes(), PUBLIC).unwrap_err().to_string();
        assert!(error.contains("d/b was changed") && error.contains("new was not signed"), "{error}");
        assert!(!error.contains("a.txt"), "{error}");
    }

    #[test]
    fn a_changed_list_or_another_key_is_refused() {
        let dir = model();
        let bundle = sign(dir.path(), PRIVATE).unwrap();
        let mut value: serde_json::Value = serde_json::from_str(&bundle).unwrap();
        let payload = STANDARD.decode(value["dsseEnvelope"]["payload"].as_str().unwrap()).unwrap();
        let changed = String::from_utf8(payload).unwrap().replace("a.txt", "b.txt");
        value["dsseEnvelope"]["payload"] = STANDARD.encode(changed).into();
        let error = verify(dir.path(), value.to_string().as_bytes(), PUBLIC).unwrap_err();
        assert!(matches!(error, SignatureError::Invalid), "{error}");
        let rng = SystemRandom::new();
        for algorithm in [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P521_SHA512_ASN1_SIGNING,
        ] {
            let der = EcdsaKeyPair::generate_pkcs8(algorithm, &rng).unwrap();
            let pem = format!(
                "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
                STANDARD.encode(der.as_ref())
            );
            let other = sign(dir.path(), &pem).unwrap();
            let error = verify(dir.path(), other.as_bytes(), PUBLIC).unwrap_err();
            assert!(matches!(error, SignatureError::OtherKey { .. }), "{error}");
            // The key pair's own public key verifies it.
            let (_, public) = key_pair(&pem).unwrap();
            let pem = format!(
                "-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n",
                STANDARD.encode(&public.der)
            );
            verify(dir.path(), other.as_bytes(), &pem).unwrap();
        }
    }

    #[test]
    fn keys_of_other_kinds_are_refused_with_what_to_do() {
        let dir = model();
        let error = |key: &str| sign(dir.path(), key).unwrap_err().to_string();
        assert!(error("nonsense").contains("not PEM"));
        assert!(error(PUBLIC).contains("a private key is needed"));
        assert!(
            error("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----")
                .contains("password")
        );
        let bundle = sign(dir.path(), PRIVATE).unwrap();
        let error = verify(dir.path(), bundle.as_bytes(), PRIVATE).unwrap_err().to_string();
        assert!(error.contains("a public key is needed"), "{error}");
    }
}
