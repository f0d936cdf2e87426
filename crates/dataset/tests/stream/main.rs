//! Stores and the streams of rows that come out of them.

mod derive;
mod properties;
mod stores;
mod support;
