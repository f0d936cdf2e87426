//! What is sent, and whether it moves.
//!
//! Large files are read as they go, a small piece at a time, and a request that nothing moves in is given up.

use crate::HubError;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

/// Bytes of a file that are read at a time.
const PIECE: u64 = 1 << 16;

/// What is sent; it can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) enum Payload<'f> {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A part of a file.
    Part {
        /// The file.
        file: &'f Path,
        /// Where the part begins.
        from: u64,
        /// Its bytes.
        bytes: u64,
    },
}

/// How far a payload is on its way.
#[derive(Debug, Default)]
pub(crate) struct Way {
    /// Bytes of a file that were handed over.
    handed: AtomicU64,
    /// Why a file could not be read on.
    failure: OnceLock<io::Error>,
}

impl Payload<'_> {
    /// As a request takes it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn body(&self, way: &Arc<Way>) -> Result<reqwest::Body, HubError> {
        match *self {
            Self::Bytes(ref bytes) => Ok(bytes.clone().into()),
            Self::Part { file: path, from, bytes } => {
                let open = || {
                    let mut file = File::open(path)?;
                    file.seek(SeekFrom::Start(from))?;
                    Ok(file)
                };
                let file = open().map_err(|source| HubError::Local { path: path.into(), source })?;
                Ok(reqwest::Body::wrap(Part { file, left: bytes, way: Arc::clone(way) }))
            }
        }
    }

    /// Why its file could not be read on, if that is what went wrong on the way.
    pub(crate) fn failure(&self, way: &Way) -> Option<HubError> {
        match (self, way.failure.get()) {
            (Self::Part { file, .. }, Some(why)) => {
                let source = io::Error::new(why.kind(), why.to_string());
                Some(HubError::Local { path: (*file).into(), source })
            }
            _ => None,
        }
    }
}

/// A part of a file on its way.
struct Part {
    file: File,
    left: u64,
    way: Arc<Way>,
}

impl Part {
    fn read(&mut self) -> io::Result<Bytes> {
        let most = self.left.min(PIECE);
        let mut piece = Vec::with_capacity(most as usize);
        match (&self.file).take(most).read_to_end(&mut piece)? {
            0 => Err(io::Error::other("the file was shortened meanwhile")),
            read => {
                self.left -= read as u64;
                self.way.handed.fetch_add(read as u64, Ordering::Relaxed);
                Ok(piece.into())
            }
        }
    }
}

impl Body for Part {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(match self.read() {
            Ok(piece) => Ok(Frame::data(piece)),
            Err(why) => {
                let told = io::Error::new(why.kind(), why.to_string());
                // The first reason stays.
                let _ = self.way.failure.set(why);
                Err(told)
            }
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// What comes of `work`; none when it does not end and nothing of the payload is handed over for that long.
pub(crate) async fn while_moving<W: Future>(patience: Duration, way: &Way, work: W) -> Option<W::Output> {
    let mut work = pin!(work);
    loop {
        let before = way.handed.load(Ordering::Relaxed);
        match tokio::time::timeout(patience, work.as_mut()).await {
            Ok(done) => return Some(done),
            Err(_) if way.handed.load(Ordering::Relaxed) == before => return None,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, task::Waker};

    fn next(part: &mut Part) -> Option<io::Result<Bytes>> {
        match Pin::new(part).poll_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(frame) => frame.map(|frame| frame.map(|f| f.into_data().unwrap())),
            Poll::Pending => panic!("a file is always ready"),
        }
    }

    #[test]
    fn a_part_comes_in_small_pieces_and_one_that_is_cut_short_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        let content: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let way = Arc::new(Way::default());
        let mut part = Part { file: File::open(&path).unwrap(), left: 150_000, way: Arc::clone(&way) };
        part.file.seek(SeekFrom::Start(7)).unwrap();
        assert_eq!(part.size_hint().exact(), Some(150_000));
        let mut all = Vec::new();
        while let Some(piece) = next(&mut part) {
            let piece = piece.unwrap();
            assert!(piece.len() as u64 <= PIECE);
            all.extend(piece);
        }
        assert!(all == content[7..150_007] && part.is_end_stream());
        assert_eq!(way.handed.load(Ordering::Relaxed), 150_000);
        let mut longer = Part { file: File::open(&path).unwrap(), left: 200_001, way: Arc::clone(&way) };
        while longer.left > 1 {
            next(&mut longer).unwrap().unwrap();
        }
        assert!(next(&mut longer).unwrap().is_err());
        let payload = Payload::Part { file: &path, from: 0, bytes: 200_001 };
        let told = payload.failure(&way).unwrap().to_string();
        assert!(told.contains("weights") && told.contains("shortened"), "{told}");
    }

    #[test]
    fn what_moves_may_take_long_and_what_does_not_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let patience = Duration::from_millis(400);
        let work = |way: Arc<Way>, step: u64| async move {
            for _ in 0..10 {
                tokio::time::sleep(patience / 4).await;
                way.handed.fetch_add(step, Ordering::Relaxed);
            }
        };
        for (step, ended) in [(1, Some(())), (0, None)] {
            let way = Arc::new(Way::default());
            let done = runtime.block_on(while_moving(patience, &way, work(Arc::clone(&way), step)));
            assert_eq!(done, ended, "{step}");
        }
    }
}
