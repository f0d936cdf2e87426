//! Refusals of requests that are no HTTP, and of clients that do not take their answers.
//!
//! `hyper` answers a head that it cannot read (or that is too long) by itself, with an empty body. Here such an answer gets the body
//! that every refusal has, on its way out. Answers of the server's own never have a status of 4xx and no body.
//!
//! A connection that takes nothing of what is to go out is given up after a while: it would keep its place for ever.

use crate::error::ApiError;
use axum::http::StatusCode;
use hyper::rt::{Read, ReadBufCursor, Write};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Sleep, sleep};

/// A connection that gives empty refusals a body, and does not wait for ever for the other side to read.
pub struct Refusing<T> {
    inner: T,
    /// What is to be written before anything else.
    queued: Vec<u8>,
    written: usize,
    /// How long nothing may go out of what waits.
    patience: Duration,
    /// The end of that time, while something waits.
    late: Option<Pin<Box<Sleep>>>,
}

impl<T> Refusing<T> {
    /// Around a connection that has to take something within `patience`.
    pub fn new(inner: T, patience: Duration) -> Self {
        Self { inner, queued: Vec::new(), written: 0, patience, late: None }
    }

    /// The outcome of a write, or an error when none has gone out for too long.
    fn in_time<R>(&mut self, context: &mut Context<'_>, outcome: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if outcome.is_ready() {
            self.late = None;
            return outcome;
        }
        let patience = self.patience;
        let late = self.late.get_or_insert_with(|| Box::pin(sleep(patience)));
        match late.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl<T: Write + Unpin> Refusing<T> {
    fn drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.queued.get(self.written..).filter(|rest| !rest.is_empty()) {
            let n = ready!(Pin::new(&mut self.inner).poll_write(context, rest))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += n;
        }
        Poll::Ready(Ok(()))
    }

    fn write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.drain(context))?;
        if let Some(full) = with_body(bytes) {
            (self.queued, self.written) = (full, 0);
            // What does not go out now goes out before the next write, or with the flush.
            if let Poll::Ready(Err(error)) = self.drain(context) {
                return Poll::Ready(Err(error));
            }
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }
}

impl<T: Read + Unpin> Read for Refusing<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for Refusing<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let outcome = self.write(context, bytes);
        self.in_time(context, outcome)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.drain(context))?;
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

/// An empty refusal with a body; none when the bytes are something else.
fn with_body(bytes: &[u8]) -> Option<Vec<u8>> {
    if !bytes.starts_with(b"HTTP/1.1 4") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    let empty = |line: &&str| line.eq_ignore_ascii_case("content-length: 0");
    let (status, _) = head.lines().next()?.strip_prefix("HTTP/1.1 ")?.split_once(' ')?;
    head.lines().find(empty)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let body = ApiError::head(status).json();
    let kept = head.lines().filter(|line| !line.is_empty() && !empty(line));
    let mut full: String = kept.map(|line| format!("{line}\r\n")).collect();
    full += &format!("content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    Some(full.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_refusal_gets_a_body_and_nothing_else_does() {
        let empty =
            b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\ndate: today\r\n\r\n";
        let full = String::from_utf8(with_body(empty).unwrap()).unwrap();
        let (head, body) = full.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 431 ") && head.contains("date: today"), "{head}");
        assert!(
            head.contains(&format!("content-length: {}", body.len())) && body.starts_with("{\"error\":{"),
            "{full}"
        );
        for other in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 2\r\n\r\n",
            b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n{}",
            b"data: HTTP/1.1 4\r\n\r\n",
        ] {
            assert!(with_body(other).is_none());
        }
    }
}
