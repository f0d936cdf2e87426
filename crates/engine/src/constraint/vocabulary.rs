//! A tokenizer as `llguidance` sees it, and grammars compiled for it.

use super::{
    ConstraintError, ConstraintSpec,
    closing::{Follower, Tables},
    plan::too_complex,
    schema,
};
use blackletter_tokenizer::{SpecialTokens, Tokenizer};
use llguidance::{
    ParserFactory, TokenParser,
    api::TopLevelGrammar,
    earley::SlicedBiasComputer,
    toktrie::{ApproximateTokEnv, INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, thread};

/// Bytes of stack for compiling: a few kilobytes for each schema that is within another.
const STACK: usize = 256 << 20;

/// Bytes of the shortest text that a grammar is tried out with.
const TRIED_OUT: usize = 4;

/// What constraints have to know of a model's tokens; made once per model.
pub struct Vocabulary {
    factory: ParserFactory,
    env: TokEnv,
}

/// A constraint, compiled: [`super::Constraint`]s are made of it, one for each text.
pub struct Grammar {
    pub(super) parser: TokenParser,
    pub(super) follower: Option<Follower>,
    pub(super) env: TokEnv,
    pub(super) json: bool,
}

impl Vocabulary {
    /// The tokens of a model with `rows` logits whose texts end with one of `eos`.
    ///
    /// # Errors
    /// When tokens do not stand for bytes of their own.
    pub fn new(tokenizer: &Tokenizer, rows: usize, eos: &[u32]) -> Result<Self, ConstraintError> {
        if !tokenizer.is_byte_level() {
            return Err(ConstraintError::Tokenizer);
        }
        let mut words = vec![Vec::new(); rows];
        let mut by_bytes: HashMap<Vec<u8>, u32> = HashMap::new();
        for (id, word) in (0..).zip(words.iter_mut()) {
            let mut bytes = tokenizer.token_bytes(id);
            if bytes.is_empty() {
                continue;
            }
            if tokenizer.is_special(id) {
                bytes.insert(0, TokTrie::SPECIAL_TOKEN_MARKER);
            } else if !by_bytes.contains_key(&bytes) || learned(tokenizer, id, &bytes) {
                by_bytes.insert(bytes.clone(), id);
            }
            *word = bytes;
        }
        // Of tokens with the same bytes, only the one that texts are encoded with has been learned.
        for (id, word) in (0..).zip(words.iter_mut()) {
            if by_bytes.get(word).is_some_and(|&kept| kept != id) {
                word.clear();
            }
        }
        let first = eos.first().copied().filter(|&id| (id as usize) < rows).unwrap_or(INVALID_TOKEN);
        let trie = TokTrie::from(&TokRxInfo::new(rows as u32, first), &words);
        let known: Vec<u32> = eos.iter().copied().filter(|&id| (id as usize) < rows).collect();
        let trie = if known.len() > 1 { trie.with_eos_tokens(&known) } else { trie };
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut factory =
            ParserFactory::new(&env, InferenceCapabilities::default(), &SlicedBiasComputer::general_slices())
                .map_err(|e| ConstraintError::TooComplex(e.to_string()))?;
        factory.quiet().limits_mut().verbose_errors = false;
        Ok(Self { factory, env })
    }

    /// Compiles a constraint.
    ///
    /// # Errors
    /// When it asks for what cannot be kept.
    pub fn compile(&self, spec: &ConstraintSpec) -> Result<Grammar, ConstraintError> {
        // Schemas that lead to each other in a long row are followed by recursion.
        thread::scope(|scope| {
            let builder = thread::Builder::new().name("constraint".into()).stack_size(STACK);
            let compiling = builder.spawn_scoped(scope, || self.compile_here(spec));
            let compiled = compiling.map_err(|e| ConstraintError::TooComplex(e.to_string()))?.join();
            compiled.unwrap_or_else(|_| Err(ConstraintError::TooComplex("it cannot be compiled".into())))
        })
    }

    fn compile_here(&self, spec: &ConstraintSpec) -> Result<Grammar, ConstraintError> {
        let (parser, json) = match spec {
            ConstraintSpec::JsonSchema(schema) => (self.compile_schema(schema)?, true),
            ConstraintSpec::Regex(regex) => {
                let parser = self.parser(TopLevelGrammar::from_regex(regex));
                (parser.map_err(ConstraintError::Regex)?, false)
            }
            ConstraintSpec::Lark(grammar) => {
                let parser = self.parser(TopLevelGrammar::from_lark(grammar.clone()));
                (parser.map_err(ConstraintError::Lark)?, false)
            }
            ConstraintSpec::Choice(choices) => {
                if choices.is_empty() || choices.iter().any(String::is_empty) {
                    return Err(ConstraintError::Choice("give at least one, and none that is empty"));
                }
                let alternatives: Vec<String> = choices.iter().map(|c| escape(c)).collect();
                let regex = format!("({})", alternatives.join("|"));
                (self.parser(TopLevelGrammar::from_regex(&regex)).map_err(ConstraintError::Regex)?, false)
            }
        };
        let follower = Tables::new(parser.parser.grammar(), self.factory.limits(), self.env.clone())
            .and_then(|tables| Follower::start(Arc::new(tables)));
        self.try_out(parser.clone(), follower.as_ref())?;
        Ok(Grammar { parser, follower, env: self.env.clone(), json })
    }

    /// Goes a few bytes of the shortest text: what is too complex there is refused before any text is made.
    fn try_out(&self, mut parser: TokenParser, follower: Option<&Follower>) -> Result<(), ConstraintError> {
        parser.compute_mask().map_err(too_complex)?;
        for byte in follower.and_then(Follower::closing).unwrap_or_default().into_iter().take(TRIED_OUT) {
            let Some(id) = self.env.tok_trie().token_id(&[byte]) else { return Ok(()) };
            parser.consume_token(id).map_err(too_complex)?;
            if parser.check_stop().map_err(too_complex)? {
                return Ok(());
            }
            parser.compute_mask().map_err(too_complex)?;
        }
        Ok(())
    }

    fn parser(&self, grammar: TopLevelGrammar) -> Result<TokenParser, String> {
        let made = self.factory.create_parser(grammar);
        let mut parser = made.map_err(|e| e.to_string().lines().next().unwrap_or_default().to_string())?;
        parser.start_without_prompt();
        Ok(parser)
    }

    fn compile_schema(&self, given: &Value) -> Result<TokenParser, ConstraintError> {
        let prepared = schema::prepare(given)?;
        match self.parser(json_grammar(&prepared)) {
            Ok(parser) => Ok(parser),
            Err(message) => {
                Err(schema::explain(&prepared, &message, |changed| self.parser(json_grammar(changed)).err()))
            }
        }
    }
}

/// Whether the text of these bytes is encoded as `id`.
fn learned(tokenizer: &Tokenizer, id: u32, bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    tokenizer.encode(&text, SpecialTokens::AsText).is_ok_and(|ids| ids == [id])
}

/// The grammar of a prepared schema: compact, and every character of a string has one spelling, so that keys compare as texts.
fn json_grammar(schema: &Value) -> TopLevelGrammar {
    let mut schema = match schema {
        Value::Object(map) => map.clone(),
        Value::Bool(false) => serde_json::Map::from_iter([("enum".to_string(), json!([]))]),
        _ => serde_json::Map::new(),
    };
    let options = json!({ "whitespace_flexible": false, "json_allowed_escapes": "nrbtf\\\"" });
    schema.insert("x-guidance".into(), options);
    TopLevelGrammar::from_json_schema(Value::Object(schema))
}

/// A text as a regular expression that matches it alone.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_ascii_punctuation() {
            out.push('\\');
        }
        out.push(c);
    }
    out
}
