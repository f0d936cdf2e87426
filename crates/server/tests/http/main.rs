//! The server as its clients meet it, over real connections.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod client;
mod hostile;
mod load;
mod page;
