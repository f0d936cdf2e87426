//! Constrained decoding: every token is one that a grammar allows.
//!
//! In flow a [`ConstraintSpec`] (JSON schema, regular expression, Lark grammar, list of choices) and a tokenizer; out flow,
//! token by token, the ids that may come next. `llguidance` knows which those are. Around it stand:
//!
//! - `schema`: refuses what a schema says and nobody can hold to, and narrows what validators read in different ways;
//! - `apart`: tells where `oneOf` is no more than `anyOf`;
//! - `merged`: reckons what comes together on one value, and refuses what would have no end;
//! - `closing`: follows the grammar beside `llguidance` and knows the shortest way to a whole document, whose tokens are kept
//!   in reserve and forced when the limit nears;
//! - `json_guard`: keeps numbers within what parsers hold exactly, and keys of an object apart;
//! - `vocabulary`: what `llguidance` has to know of a tokenizer, once per model.

mod apart;
mod closing;
mod json_guard;
mod merged;
mod plan;
mod schema;
mod vocabulary;

pub use plan::{Constraint, Verdict};
pub use vocabulary::{Grammar, Vocabulary};

use serde_json::Value;

/// What a continuation has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum ConstraintSpec {
    /// A JSON document that a JSON schema accepts, without white space between its parts.
    JsonSchema(Value),
    /// Text that matches a regular expression (Rust's syntax, without look-around) from beginning to end.
    Regex(String),
    /// Text that a grammar in `llguidance`'s variant of Lark derives.
    Lark(String),
    /// One of several texts.
    Choice(Vec<String>),
}

/// A constraint cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// The schema says something that cannot be kept.
    #[error("unsupported keyword: {keyword} at {pointer}{}", if why.is_empty() { String::new() } else { format!(" ({why})") })]
    UnsupportedKeyword {
        /// The keyword.
        keyword: String,
        /// JSON pointer to it.
        pointer: String,
        /// More about it, if there is more to say.
        why: String,
    },
    /// The schema contradicts itself or is none.
    #[error("the JSON schema cannot be used: {0}")]
    Schema(String),
    /// The regular expression cannot be used.
    #[error("the regular expression cannot be used: {0}")]
    Regex(String),
    /// The grammar cannot be used.
    #[error("the grammar cannot be used: {0}")]
    Lark(String),
    /// The choices cannot be used.
    #[error("the choices cannot be used: {0}")]
    Choice(&'static str),
    /// Only byte-level tokenizers tell what bytes a token stands for.
    #[error(
        "constraints need a byte-level tokenizer, whose tokens stand for bytes whatever comes before them; this model's is of another kind"
    )]
    Tokenizer,
    /// The grammar grew beyond its bounds while text was made.
    #[error("the constraint became too complex: {0}")]
    TooComplex(String),
}

#[cfg(test)]
mod tests;
