//! Best-fit packing: things of different length into rows of one length, each into the row with the least room that it fits
//! in.
//!
//! With the longest first that needs at most 11/9 of the best possible number of rows, plus one (Johnson, 1973). That is
//! for segments, many of which fill more than half a row. Short things, as examples are, fill rows nearly as well in any
//! order; theirs is random, so that rows do not consist of things of one length.

/// Lists of numbers, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Lists {
    starts: Vec<u32>,
    items: Vec<u32>,
}

impl Lists {
    pub(crate) fn len(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    pub(crate) fn get(&self, list: usize) -> &[u32] {
        let span = self.starts.get(list).zip(self.starts.get(list + 1));
        span.and_then(|(&from, &to)| self.items.get(from as usize..to as usize)).unwrap_or_default()
    }

    /// Every item a list of its own.
    pub(crate) fn single(items: Vec<u32>) -> Self {
        Self { starts: (0..=items.len() as u32).collect(), items }
    }

    /// The lists in another order.
    pub(crate) fn reordered(&self, order: &[u32]) -> Self {
        let mut lists = Self { starts: vec![0], items: Vec::with_capacity(self.items.len()) };
        for &list in order {
            lists.items.extend(self.get(list as usize));
            lists.starts.push(lists.items.len() as u32);
        }
        lists
    }

    /// Appends other lists.
    pub(crate) fn extend(&mut self, other: &Self) {
        let shift = self.items.len() as u32;
        if self.starts.is_empty() {
            self.starts.push(0);
        }
        self.starts.extend(other.starts.iter().skip(1).map(|start| start + shift));
        self.items.extend(&other.items);
    }
}

/// Rows that have room, by how much; the sets of those with any are kept as bits.
struct Rooms {
    rows: Vec<Vec<u32>>,
    some: Vec<u64>,
}

impl Rooms {
    fn put(&mut self, room: usize, row: u32) {
        if let (Some(rows), Some(bits)) = (self.rows.get_mut(room), self.some.get_mut(room / 64)) {
            rows.push(row);
            *bits |= 1 << (room % 64);
        }
    }

    /// Takes a row with the least room that is at least `len`.
    fn take(&mut self, len: usize) -> Option<(usize, u32)> {
        let mut word = len / 64;
        let mut bits = self.some.get(word)? & (u64::MAX << (len % 64));
        while bits == 0 {
            word += 1;
            bits = *self.some.get(word)?;
        }
        let room = word * 64 + bits.trailing_zeros() as usize;
        let rows = self.rows.get_mut(room)?;
        let row = rows.pop()?;
        if rows.is_empty() {
            *self.some.get_mut(word)? &= !(1 << (room % 64));
        }
        Some((room, row))
    }
}

/// Packs `items`, in the order given, into rows of `size`; each is at most that long.
pub(crate) fn pack(items: &[u32], length: impl Fn(u32) -> usize, size: usize) -> Lists {
    let mut rooms = Rooms { rows: vec![Vec::new(); size + 1], some: vec![0; size / 64 + 1] };
    let mut row_of = Vec::with_capacity(items.len());
    let mut rows = 0u32;
    for &item in items {
        let len = length(item).min(size);
        let (room, row) = rooms.take(len).unwrap_or_else(|| {
            rows += 1;
            (size, rows - 1)
        });
        rooms.put(room - len, row);
        row_of.push(row);
    }
    drop(rooms);
    let mut starts = vec![0u32; rows as usize + 1];
    for &row in &row_of {
        starts[row as usize + 1] += 1;
    }
    for at in 1..starts.len() {
        starts[at] += starts[at - 1];
    }
    let mut next = starts.clone();
    let mut packed = vec![0; items.len()];
    for (&item, &row) in items.iter().zip(&row_of) {
        packed[next[row as usize] as usize] = item;
        next[row as usize] += 1;
    }
    Lists { starts, items: packed }
}

/// Items in the order of their lengths, longest first; the order of equals stays.
pub(crate) fn longest_first(items: &[u32], length: impl Fn(u32) -> usize, size: usize) -> Vec<u32> {
    // A counting sort.
    let mut counts = vec![0u32; size + 2];
    let place = |item: u32| size - length(item).min(size);
    for &item in items {
        if let Some(count) = counts.get_mut(place(item) + 1) {
            *count += 1;
        }
    }
    for at in 1..counts.len() {
        counts[at] += counts[at - 1];
    }
    let mut sorted = vec![0; items.len()];
    for &item in items {
        if let Some(next) = counts.get_mut(place(item)) {
            if let Some(slot) = sorted.get_mut(*next as usize) {
                *slot = item;
            }
            *next += 1;
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn everything_is_packed_once_and_no_row_overflows(
            lengths in prop::collection::vec(0usize..=130, 0..200), size in 130usize..200,
        ) {
            let items: Vec<u32> = (0..lengths.len() as u32).collect();
            let packed = pack(&items, |item| lengths[item as usize], size);
            let mut seen: Vec<u32> = Vec::new();
            for row in 0..packed.len() {
                let items = packed.get(row);
                prop_assert!(!items.is_empty());
                prop_assert!(items.iter().map(|&item| lengths[item as usize]).sum::<usize>() <= size);
                seen.extend(items);
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, items);
            // No two rows would fit into one.
            let sums: Vec<usize> =
                (0..packed.len()).map(|row| packed.get(row).iter().map(|&i| lengths[i as usize]).sum()).collect();
            let mut least = sums.clone();
            least.sort_unstable();
            prop_assert!(least.len() < 2 || least[0] + least[1] > size || least[0] == 0);
        }
    }

    #[test]
    fn what_fills_a_row_exactly_is_put_together() {
        let lengths = [6, 4, 7, 3, 10, 1];
        let length = |item: u32| lengths[item as usize];
        let sorted = longest_first(&[0, 1, 2, 3, 4, 5], length, 10);
        assert_eq!(sorted, [4, 2, 0, 1, 3, 5]);
        let packed = pack(&sorted, length, 10);
        let mut rows: Vec<Vec<u32>> = (0..packed.len()).map(|row| packed.get(row).to_vec()).collect();
        rows.sort();
        assert_eq!(rows, [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn lists_follow_each_other() {
        let mut lists = Lists::default();
        assert_eq!((lists.len(), lists.get(0)), (0, &[][..]));
        lists.extend(&Lists::single(vec![7, 8]));
        lists.extend(&pack(&[1, 2], |_| 1, 2));
        assert_eq!((lists.len(), lists.get(1), lists.get(2)), (3, &[8][..], &[1, 2][..]));
    }
}
