//! Byte-pair encoding of one piece: join the adjacent pair of lowest rank, leftmost first, until none can be joined.

use ahash::AHashMap;
use std::{cmp::Reverse, collections::BinaryHeap};

/// Pieces up to this many bytes are merged by scanning; longer ones with a heap, so that a hostile piece of a megabyte
/// costs `n log n` and not `n²`.
const SCAN: usize = 48;

/// Longest piece worth remembering, in bytes, and how many are remembered before the memory is cleared.
const REMEMBERED_BYTES: usize = 64;
const REMEMBERED_PIECES: usize = 1 << 16;

const NO_RANK: u32 = u32::MAX;

/// The model: ids of single bytes, and what pairs join to.
pub(crate) struct Bpe {
    pub(crate) byte_ids: [u32; 256],
    /// (left, right) → (rank, joined id)
    pub(crate) merges: AHashMap<(u32, u32), (u32, u32)>,
}

/// What an encoder keeps between pieces: room to work in, and pieces that it has seen.
#[derive(Default)]
pub(crate) struct Scratch {
    seen: AHashMap<Box<[u8]>, (u32, u32)>,
    /// The ids of seen pieces, one after the other.
    seen_ids: Vec<u32>,
    parts: Vec<(u32, u32)>,
    work: Vec<u32>,
}

impl Bpe {
    /// Appends the ids of `piece` to `ids`.
    pub(crate) fn encode(&self, piece: &[u8], scratch: &mut Scratch, ids: &mut Vec<u32>) {
        if let [byte] = piece {
            ids.push(self.byte_ids[*byte as usize]);
            return;
        }
        if piece.len() > REMEMBERED_BYTES {
            return self.merge_with_heap(piece, ids);
        }
        if let Some(&(from, to)) = scratch.seen.get(piece) {
            ids.extend_from_slice(scratch.seen_ids.get(from as usize..to as usize).unwrap_or_default());
            return;
        }
        let mut work = std::mem::take(&mut scratch.work);
        work.clear();
        if piece.len() > SCAN {
            self.merge_with_heap(piece, &mut work);
        } else {
            self.merge_by_scan(piece, &mut scratch.parts, &mut work);
        }
        if scratch.seen.len() >= REMEMBERED_PIECES {
            scratch.seen.clear();
            scratch.seen_ids.clear();
        }
        let from = scratch.seen_ids.len() as u32;
        scratch.seen_ids.extend_from_slice(&work);
        scratch.seen.insert(piece.into(), (from, scratch.seen_ids.len() as u32));
        ids.extend_from_slice(&work);
        scratch.work = work;
    }

    fn join(&self, left: u32, right: u32) -> (u32, u32) {
        self.merges.get(&(left, right)).copied().unwrap_or((NO_RANK, 0))
    }

    /// `parts` holds (id, rank of the pair that begins here).
    fn merge_by_scan(&self, piece: &[u8], parts: &mut Vec<(u32, u32)>, ids: &mut Vec<u32>) {
        parts.clear();
        parts.extend(piece.iter().map(|&b| (self.byte_ids[b as usize], NO_RANK)));
        let rank = |parts: &[(u32, u32)], i: usize| match (parts.get(i), parts.get(i + 1)) {
            (Some(left), Some(right)) => self.join(left.0, right.0).0,
            _ => NO_RANK,
        };
        for i in 0..parts.len() {
            parts[i].1 = rank(parts, i);
        }
        // The minimum that comes first is the leftmost.
        while let Some((i, &(left, lowest))) = parts.iter().enumerate().min_by_key(|(_, part)| part.1)
            && lowest != NO_RANK
        {
            let (_, joined) = self.join(left, parts[i + 1].0);
            parts.remove(i + 1);
            parts[i].0 = joined;
            parts[i].1 = rank(parts, i);
            if i > 0 {
                parts[i - 1].1 = rank(parts, i - 1);
            }
        }
        ids.extend(parts.iter().map(|part| part.0));
    }

    fn merge_with_heap(&self, piece: &[u8], ids: &mut Vec<u32>) {
        const NONE: usize = usize::MAX;
        struct Part {
            id: u32,
            before: usize,
            after: usize,
            gone: bool,
        }
        let last = piece.len() - 1;
        let mut parts: Vec<Part> = piece
            .iter()
            .enumerate()
            .map(|(i, &b)| Part {
                id: self.byte_ids[b as usize],
                before: i.wrapping_sub(1), // NONE before the first
                after: if i == last { NONE } else { i + 1 },
                gone: false,
            })
            .collect();
        // (rank, left part, the two ids as they were): an entry whose ids have changed is out of date.
        let mut queue = BinaryHeap::new();
        let push = |queue: &mut BinaryHeap<_>, parts: &[Part], i: usize| {
            if let Some(left) = parts.get(i)
                && let Some(right) = parts.get(left.after)
                && let (rank, joined) = self.join(left.id, right.id)
                && rank != NO_RANK
            {
                queue.push(Reverse((rank, i, left.id, right.id, joined)));
            }
        };
        for i in 0..last {
            push(&mut queue, &parts, i);
        }
        while let Some(Reverse((_, i, left, right, joined))) = queue.pop() {
            let after = parts[i].after;
            if parts[i].gone || parts[i].id != left || after == NONE || parts[after].id != right {
                continue;
            }
            parts[after].gone = true;
            let beyond = parts[after].after;
            parts[i].id = joined;
            parts[i].after = beyond;
            if beyond != NONE {
                parts[beyond].before = i;
            }
            push(&mut queue, &parts, i);
            push(&mut queue, &parts, parts[i].before);
        }
        ids.extend(parts.iter().filter(|part| !part.gone).map(|part| part.id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes keep their values as ids; `joins` are pairs of earlier ids, of rising rank.
    fn model(joins: &[(u32, u32)]) -> Bpe {
        let mut merges = AHashMap::new();
        for (rank, &(a, b)) in (0..).zip(joins) {
            let ids = 256 + rank;
            merges.insert((a % ids, b % ids), (rank, ids));
        }
        Bpe { byte_ids: std::array::from_fn(|b| b as u32), merges }
    }

    #[test]
    fn the_leftmost_of_equal_pairs_is_joined_first() {
        let bpe = model(&[(97, 97)]);
        let mut ids = Vec::new();
        bpe.encode(b"aaaaa", &mut Scratch::default(), &mut ids);
        assert_eq!(ids, [256, 256, 97]);
    }

    #[test]
    fn the_lowest_rank_is_joined_before_what_stands_further_left() {
        let bpe = model(&[(98, 99), (97, 98)]);
        let mut ids = Vec::new();
        bpe.encode(b"abc", &mut Scratch::default(), &mut ids);
        assert_eq!(ids, [97, 256]);
    }

    #[test]
    fn a_piece_of_a_megabyte_is_done_in_one_go() {
        let bpe = model(&[(97, 97), (256, 256), (257, 257)]);
        let mut ids = Vec::new();
        bpe.encode(&vec![b'a'; 1 << 20], &mut Scratch::default(), &mut ids);
        assert_eq!(ids, vec![258; 1 << 17]);
    }

    proptest! {
        #[test]
        fn scan_heap_and_memory_agree(
            joins in proptest::collection::vec((0u32..300, 0u32..300), 0..60),
            small in proptest::collection::vec((97u32..101, 97u32..101), 0..6),
            piece in proptest::collection::vec(97u8..101, 2..SCAN),
        ) {
            let joins: Vec<_> = small.into_iter().chain(joins).collect();
            let bpe = model(&joins);
            let (mut scanned, mut heaped, mut twice) = (Vec::new(), Vec::new(), Vec::new());
            bpe.merge_by_scan(&piece, &mut Vec::new(), &mut scanned);
            bpe.merge_with_heap(&piece, &mut heaped);
            prop_assert_eq!(&scanned, &heaped);
            let mut scratch = Scratch::default();
            bpe.encode(&piece, &mut scratch, &mut twice);
            bpe.encode(&piece, &mut scratch, &mut twice);
            prop_assert_eq!(twice, [scanned.clone(), scanned].concat());
        }
    }
}
