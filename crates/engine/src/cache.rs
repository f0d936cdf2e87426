//! The KV cache: pages of 32 positions, counted, shared between sequences with a common beginning.

use blackletter_kernels::{AttentionShape, Buffer, PAGE, PageRef};

/// All pages of a runner, in use or waiting for reuse.
pub(crate) struct Pages {
    shape: AttentionShape,
    layers: usize,
    pages: Vec<Page>,
    free: Vec<usize>,
}

struct Page {
    /// Every layer's keys and values, one after the other.
    data: Buffer,
    users: usize,
}

/// The pages of one sequence, from the first that is still visible.
#[derive(Default)]
pub(crate) struct PageTable {
    /// Index, in pages of 32 positions, of the first page kept.
    first: usize,
    pages: Vec<usize>,
}

impl Pages {
    pub(crate) fn new(shape: AttentionShape, layers: usize) -> Self {
        Self { shape, layers, pages: Vec::new(), free: Vec::new() }
    }

    pub(crate) fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    fn layer_len(&self) -> usize {
        self.shape.key_len() + self.shape.value_len()
    }

    /// Pages that sequences hold.
    pub(crate) fn used(&self) -> usize {
        self.pages.len() - self.free.len()
    }

    /// A zeroed page with one user.
    fn take(&mut self) -> usize {
        match self.free.pop() {
            Some(index) => {
                let page = &mut self.pages[index];
                // Slots not yet written are multiplied by zero; they must be numbers.
                page.data.fill(0.0);
                page.users = 1;
                index
            }
            None => {
                let data = Buffer::zeros(self.layers * self.layer_len());
                self.pages.push(Page { data, users: 1 });
                self.pages.len() - 1
            }
        }
    }

    fn drop_user(&mut self, index: usize) {
        let page = &mut self.pages[index];
        page.users -= 1;
        if page.users == 0 {
            self.free.push(index);
        }
    }

    /// Makes the page of `position`, the table's next one, writable by this table alone.
    pub(crate) fn prepare(&mut self, table: &mut PageTable, position: usize) {
        let at = position / PAGE - table.first;
        if at == table.pages.len() {
            let new = self.take();
            table.pages.push(new);
            return;
        }
        let old = table.pages[at];
        if self.pages[old].users > 1 {
            let new = self.take();
            let (low, high) = self.pages.split_at_mut(old.max(new));
            let (from, to) = if old < new {
                (&low[old].data, &mut high[0].data)
            } else {
                (&high[0].data, &mut low[new].data)
            };
            to.copy_from_slice(from);
            table.pages[at] = new;
            self.drop_user(old);
        }
    }

    /// Gives back the pages that no later position sees, when `next` is the next position.
    pub(crate) fn release_hidden(&mut self, table: &mut PageTable, next: usize) {
        let visible = self.shape.visible(next).start / PAGE;
        let hidden = visible.saturating_sub(table.first).min(table.pages.len());
        for index in table.pages.drain(..hidden) {
            self.drop_user(index);
        }
        table.first += hidden;
    }

    /// Gives back all pages.
    pub(crate) fn release(&mut self, table: PageTable) {
        for index in table.pages {
            self.drop_user(index);
        }
    }

    /// A second table of the same pages.
    pub(crate) fn share(&mut self, table: &PageTable) -> PageTable {
        for &index in &table.pages {
            self.pages[index].users += 1;
        }
        PageTable { first: table.first, pages: table.pages.clone() }
    }

    /// Page `index` (of 32 positions) of a table, in one layer.
    pub(crate) fn page(&self, table: &PageTable, layer: usize, index: usize) -> PageRef<'_> {
        let data = &self.pages[table.pages[index - table.first]].data;
        let own = &data[layer * self.layer_len()..(layer + 1) * self.layer_len()];
        let (keys, values) = own.split_at(self.shape.key_len());
        PageRef { keys, values }
    }

    /// Writes a token's key and value in one layer; its page has been prepared.
    pub(crate) fn write(
        &mut self,
        table: &PageTable,
        layer: usize,
        position: usize,
        key: &[f32],
        value: &[f32],
    ) {
        let len = self.layer_len();
        let data = &mut self.pages[table.pages[position / PAGE - table.first]].data;
        let (keys, values) = data[layer * len..(layer + 1) * len].split_at_mut(self.shape.key_len());
        blackletter_kernels::write_kv(&self.shape, position % PAGE, key, value, keys, values);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(window: Option<usize>) -> Pages {
        Pages::new(AttentionShape { heads: 1, kv_heads: 1, head_dim: 2, window }, 1)
    }

    #[test]
    fn pages_behind_the_window_are_given_back_and_used_again() {
        let mut pages = pages(Some(64));
        let mut table = PageTable::default();
        for position in 0..1000 {
            pages.prepare(&mut table, position);
            pages.write(&table, 0, position, &[1.0, 2.0], &[3.0, 4.0]);
            pages.release_hidden(&mut table, position + 1);
            assert!(pages.used() <= 3, "at {position}: {}", pages.used());
        }
        assert!(pages.pages.len() <= 3);
        pages.release(table);
        assert_eq!(pages.used(), 0);
    }

    #[test]
    fn a_shared_page_is_copied_before_it_is_written() {
        let mut pages = pages(None);
        let mut one = PageTable::default();
        for position in 0..40 {
            pages.prepare(&mut one, position);
            pages.write(&one, 0, position, &[position as f32, 0.0], &[0.0, 0.0]);
        }
        let mut two = pages.share(&one);
        assert_eq!(pages.used(), 2);
        pages.prepare(&mut two, 40);
        pages.write(&two, 0, 40, &[-1.0, 0.0], &[0.0, 0.0]);
        assert_eq!(pages.used(), 3, "only the page that is written is copied");
        assert_eq!(pages.page(&two, 0, 1).keys[7], 39.0, "what was there is in the copy");
        assert_eq!(pages.page(&one, 0, 1).keys[8], 0.0, "the other sequence does not see the new token");
        pages.release(one);
        pages.release(two);
        assert_eq!(pages.used(), 0);
    }
}
