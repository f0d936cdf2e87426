//! Where a text stands in the training data.
//!
//! In flow a token store and the corpus that it was made from; [`build`] makes an index of them ([`of_corpus`] of a corpus alone), a directory that [`Index`]
//! maps into memory; out flow the longest [`Span`]s of any text that stand in the training data, and the documents that they
//! are from. Notable choices:
//!
//! - the index is a suffix array over all tokens, documents being set apart by an id that no text has, so that no span leads
//!   from one document to the next;
//! - a span is maximal: no longer one that holds it occurs;
//! - what is searched for is tokens: a text is encoded as documents were, so that spans begin and end where tokens do.

mod build;
mod error;
mod files;
mod index;
mod of_corpus;
mod search;

pub use build::{Inputs, build};
pub use error::TraceError;
pub use index::{DocumentRecord, Index, Manifest};
pub use of_corpus::{Progress, of_corpus};
pub use search::{Found, Match, Span, SpanOptions};
