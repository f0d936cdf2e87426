//! Stores and the streams of rows that come out of them.

mod properties;
mod stores;
mod support;
