//! The JSON stages: documents as collected, representations as parsed, and the index.

use super::{Kl3mDataError, bounded, deflate, inflate};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, io::Write};

/// A document as collected: its bytes and what is known about it.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceDocument {
    /// The bytes.
    pub content: Vec<u8>,
    /// Dublin Core and whatever else: `source`, `identifier`, `format` (the MIME type), `title`, `license`, … All of it is
    /// kept in reading and writing.
    pub metadata: Map<String, Value>,
}

impl SourceDocument {
    /// A text field of the metadata.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.metadata.get(name).and_then(Value::as_str)
    }

    /// Reads the object.
    ///
    /// # Errors
    /// When it is not JSON, or has no content in base64 of zlib.
    pub fn from_json(json: &[u8]) -> Result<Self, Kl3mDataError> {
        const WHAT: &str = "a document";
        let mut metadata: Map<String, Value> = parse(WHAT, json)?;
        let Some(Value::String(content)) = metadata.remove("content") else {
            return Err(wrong(WHAT, "it has no string `content`"));
        };
        Ok(Self { content: unpack(WHAT, &content)?, metadata })
    }

    /// Writes the object.
    ///
    /// # Errors
    /// When the content cannot be compressed.
    pub fn to_json(&self) -> Result<Vec<u8>, Kl3mDataError> {
        let mut fields = self.metadata.clone();
        fields.insert("content".into(), pack("a document", &self.content)?.into());
        written("a document", &fields)
    }
}

/// What parsing made of one collected document, which may hold several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Representations {
    /// The documents found in it.
    pub documents: Vec<ParsedDocument>,
}

/// A parsed document.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ParsedDocument {
    /// Where it is from.
    pub source: Option<String>,
    /// Its name there.
    pub identifier: Option<String>,
    /// The object it was parsed from.
    #[serde(default)]
    pub original_uri: Option<String>,
    /// By MIME type.
    pub representations: BTreeMap<String, Representation>,
    /// Whatever the parser found out.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Whether parsing went well.
    #[serde(default)]
    pub success: bool,
    /// Fields that only some writers have, kept as they are.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// A text of a parsed document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Representation {
    /// The text.
    pub content: String,
    /// Token ids by tokenizer.
    pub tokens: BTreeMap<String, Vec<u32>>,
    /// `text/markdown`, `text/plain`, …
    pub mime_type: String,
}

#[derive(Serialize, Deserialize)]
struct Packed {
    content: String,
    #[serde(default)]
    tokens: BTreeMap<String, Vec<u32>>,
    mime_type: String,
}

impl Serialize for Representation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let content = pack("a representation", self.content.as_bytes()).map_err(serde::ser::Error::custom)?;
        Packed { content, tokens: self.tokens.clone(), mime_type: self.mime_type.clone() }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Representation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let packed = Packed::deserialize(deserializer)?;
        let content = unpack("a representation", &packed.content).map_err(Error::custom)?;
        let content = String::from_utf8(content).map_err(Error::custom)?;
        Ok(Self { content, tokens: packed.tokens, mime_type: packed.mime_type })
    }
}

impl ParsedDocument {
    /// The text to go on with: Markdown, else plain text, else any text there is.
    pub fn text(&self) -> Option<&Representation> {
        let by_type = |mime: &str| self.representations.get(mime);
        by_type("text/markdown")
            .or_else(|| by_type("text/plain"))
            .or_else(|| self.representations.values().next())
    }
}

impl Representations {
    /// Reads the object.
    ///
    /// # Errors
    /// When it is not JSON of this form.
    pub fn from_json(json: &[u8]) -> Result<Self, Kl3mDataError> {
        #[derive(Deserialize)]
        struct File {
            documents: Vec<ParsedDocument>,
        }
        let file: File = parse("representations", json)?;
        Ok(Self { documents: file.documents })
    }

    /// Writes the object.
    ///
    /// # Errors
    /// When a text cannot be compressed.
    pub fn to_json(&self) -> Result<Vec<u8>, Kl3mDataError> {
        written("representations", &serde_json::json!({ "documents": self.documents }))
    }
}

/// The keys of a dataset's representations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Index {
    /// The keys.
    pub objects: Vec<String>,
    /// Whatever else the writer says.
    #[serde(default)]
    pub metadata: Map<String, Value>,
}

impl Index {
    /// Reads the object. Indexes named `.json.gz` that are not compressed exist, and are read.
    ///
    /// # Errors
    /// When it is not JSON of this form.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Kl3mDataError> {
        if bytes.starts_with(&[0x1f, 0x8b]) {
            return parse("an index", &bounded("an index", MultiGzDecoder::new(bytes))?);
        }
        parse("an index", bytes)
    }

    /// Writes the object, compressed.
    ///
    /// # Errors
    /// When it cannot be compressed.
    pub fn to_bytes(&self) -> Result<Vec<u8>, Kl3mDataError> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&written("an index", self)?).map_err(|e| wrong("an index", e))?;
        encoder.finish().map_err(|e| wrong("an index", e))
    }
}

fn wrong(what: &'static str, reason: impl ToString) -> Kl3mDataError {
    Kl3mDataError::Format { what, reason: reason.to_string() }
}

fn parse<T: DeserializeOwned>(what: &'static str, json: &[u8]) -> Result<T, Kl3mDataError> {
    serde_json::from_slice(json).map_err(|e| wrong(what, e))
}

fn written(what: &'static str, value: &impl Serialize) -> Result<Vec<u8>, Kl3mDataError> {
    serde_json::to_vec(value).map_err(|e| wrong(what, e))
}

fn pack(what: &'static str, bytes: &[u8]) -> Result<String, Kl3mDataError> {
    Ok(BASE64.encode(deflate(bytes).map_err(|e| wrong(what, e))?))
}

fn unpack(what: &'static str, text: &str) -> Result<Vec<u8>, Kl3mDataError> {
    inflate(what, &BASE64.decode(text).map_err(|e| wrong(what, format!("its base64: {e}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Made with Python: `base64.b64encode(zlib.compress("§ 1. Oil.".encode()))`.
    const PACKED: &str = "eJw7tFzBUE/BPzNHDwAVBQNb";

    #[test]
    fn a_document_keeps_all_its_metadata() {
        let json =
            format!(r#"{{"content":"{PACKED}","format":"text/plain","identifier":"1","x":{{"y":[1]}}}}"#);
        let document = SourceDocument::from_json(json.as_bytes()).unwrap();
        assert_eq!(document.content, "§ 1. Oil.".as_bytes());
        assert_eq!(document.field("format"), Some("text/plain"));
        assert_eq!(document.metadata["x"]["y"][0], 1);
        assert_eq!(SourceDocument::from_json(&document.to_json().unwrap()).unwrap(), document);
    }

    #[test]
    fn representations_come_back_with_text_tokens_and_unknown_fields() {
        let json = format!(
            r#"{{"documents":[{{"source":"s","identifier":"i","original_uri":null,"success":true,"error":"none",
            "metadata":{{"title":"t"}},"representations":{{
            "text/plain":{{"content":"{PACKED}","tokens":{{"kl3m":[1,2]}},"mime_type":"text/plain"}},
            "text/markdown":{{"content":"{PACKED}","mime_type":"text/markdown"}}}}}}]}}"#
        );
        let parsed = Representations::from_json(json.as_bytes()).unwrap();
        let document = &parsed.documents[0];
        assert_eq!(document.text().unwrap().mime_type, "text/markdown");
        assert_eq!(document.representations["text/plain"].content, "§ 1. Oil.");
        assert_eq!(document.representations["text/plain"].tokens["kl3m"], [1, 2]);
        assert_eq!(document.other["error"], "none");
        assert_eq!(Representations::from_json(&parsed.to_json().unwrap()).unwrap(), parsed);
    }

    #[test]
    fn an_index_is_read_compressed_or_not() {
        let plain = br#"{"objects":["representations/usc/1.json"],"metadata":{"count":1}}"#;
        let index = Index::from_bytes(plain).unwrap();
        let compressed = index.to_bytes().unwrap();
        assert_eq!(compressed[..2], [0x1f, 0x8b]);
        assert_eq!(Index::from_bytes(&compressed).unwrap(), index);
    }

    #[test]
    fn damage_is_said() {
        let error = |json: &str| SourceDocument::from_json(json.as_bytes()).unwrap_err().to_string();
        assert!(error("{}").contains("no string `content`"));
        assert!(error(r#"{"content":"*"}"#).contains("its base64"));
        assert!(error(r#"{"content":"AAAA"}"#).contains("its compression"));
        assert!(error("[").contains("a document cannot be understood"));
    }

    proptest! {
        #[test]
        fn any_bytes_come_back(content: Vec<u8>, title: String) {
            let metadata = Map::from_iter([("title".to_string(), Value::from(title))]);
            let document = SourceDocument { content, metadata };
            prop_assert_eq!(SourceDocument::from_json(&document.to_json().unwrap()).unwrap(), document);
        }

        #[test]
        fn bytes_that_are_no_record_are_refused(bytes: Vec<u8>) {
            prop_assert!(SourceDocument::from_json(&bytes).is_err());
            prop_assert!(Representations::from_json(&bytes).is_err());
        }
    }
}
