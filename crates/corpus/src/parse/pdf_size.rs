//! How large the streams of a PDF become, before anything inflates them: some kilobytes can stand for gigabytes.
//!
//! The interpreter inflates a stream as a whole, and reads some (cross-references, streams of objects) on opening a file. So
//! the bytes are looked through for streams that a limit could be exceeded by, and these are inflated to nowhere.

use flate2::read::ZlibDecoder;
use std::io::Read;

/// Deflate makes at most 1,032 bytes of one.
const MOST: u64 = 1032;
/// Deflated streams inside each other that are looked into.
const NESTED: usize = 3;

/// Whether any stream in the bytes of a PDF inflates to more than `limit` bytes.
pub(super) fn exceeds(pdf: &[u8], limit: u64) -> bool {
    let keyword = memchr::memmem::Finder::new(b"stream");
    let end = memchr::memmem::Finder::new(b"endstream");
    // Where the next stream ends: looked for once, however many beginnings stand before it.
    let (mut from, mut ends) = (0, 0);
    while let Some(at) = keyword.find(&pdf[from..]) {
        let start = from + at + b"stream".len();
        let mut data = &pdf[start..];
        data = data.strip_prefix(b"\r").unwrap_or(data);
        data = data.strip_prefix(b"\n").unwrap_or(data);
        from = start;
        if !is_zlib(data) {
            continue;
        }
        if ends < start {
            ends = end.find(&pdf[start..]).map_or(pdf.len(), |at| start + at);
        }
        let length = (ends - start) as u64;
        // Deflated twice, a few bytes are enough.
        let again = || count(ZlibDecoder::new(data), 2).1;
        if (length.saturating_mul(MOST) > limit || again()) && inflated(data, limit) > limit {
            return true;
        }
    }
    false
}

/// The bytes that data inflate to, up to `limit` and one; where those are deflated themselves, what they inflate to if that is
/// more; the data's own number where they are not deflated. What comes before damage counts.
pub(super) fn inflated(data: &[u8], limit: u64) -> u64 {
    let mut largest = data.len() as u64;
    for depth in 1..=NESTED {
        let mut source: Box<dyn Read + '_> = Box::new(data);
        for _ in 0..depth {
            source = Box::new(ZlibDecoder::new(source));
        }
        let (size, again) = count(source, limit);
        largest = largest.max(size);
        if !again {
            break;
        }
    }
    largest
}

/// How much a source gives, up to `limit` and one, and whether it looks deflated.
fn count(source: impl Read, limit: u64) -> (u64, bool) {
    let mut source = source.take(limit.saturating_add(1));
    let (mut sum, mut piece, mut again) = (0, vec![0; 1 << 16], false);
    while let Ok(read) = source.read(&mut piece)
        && read > 0
    {
        again |= sum == 0 && is_zlib(&piece[..read]);
        sum += read as u64;
    }
    (sum, again)
}

fn is_zlib(data: &[u8]) -> bool {
    matches!(data, [first, second, ..] if first & 0x0f == 8 && (u16::from(*first) << 8 | u16::from(*second)).is_multiple_of(31))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::ZlibEncoder};
    use std::io::Write;

    fn deflated(data: &[u8]) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn streams_are_measured_through_every_stage() {
        let blanks = vec![b' '; 4 << 20];
        let once = deflated(&blanks);
        let twice = deflated(&once);
        assert_eq!(inflated(&once, 8 << 20), 4 << 20);
        assert_eq!(inflated(&twice, 8 << 20), 4 << 20);
        assert_eq!(inflated(&once, 1 << 20), (1 << 20) + 1);
        assert_eq!(inflated(b"BT ET", 8 << 20), 5);
        for data in [&once, &twice] {
            let file = [b"%PDF-1.4\n1 0 obj\n<<>>stream\r\n", data.as_slice(), b"\nendstream"].concat();
            assert!(exceeds(&file, 1 << 20));
            assert!(!exceeds(&file, 4 << 20));
        }
    }
}
