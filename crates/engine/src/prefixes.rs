//! Beginnings of prompts that have been read: prompts with the same beginning read it once.

use crate::{Runner, Sequence};

/// Tokens between places that are kept within a prompt.
pub(crate) const STEP: usize = 128;

/// Kept beginnings, those used last at the end.
#[derive(Default)]
pub(crate) struct Prefixes {
    kept: Vec<Kept>,
}

struct Kept {
    ids: Vec<u32>,
    sequence: Sequence,
    /// Logits of what follows, where a whole prompt ends.
    logits: Option<Vec<f32>>,
}

/// How much of a prompt has been read before.
pub(crate) struct Found {
    pub sequence: Sequence,
    pub logits: Option<Vec<f32>>,
}

impl Prefixes {
    /// The longest kept beginning of `prompt`, as a sequence that goes on from it; with logits when it is all of it.
    pub fn find(&mut self, runner: &mut Runner<'_>, prompt: &[u32]) -> Option<Found> {
        let fits = |kept: &Kept| {
            prompt.starts_with(&kept.ids) && (kept.ids.len() < prompt.len() || kept.logits.is_some())
        };
        let (at, _) = self
            .kept
            .iter()
            .enumerate()
            .filter(|(_, kept)| fits(kept))
            .max_by_key(|(_, kept)| kept.ids.len())?;
        let kept = self.kept.remove(at);
        let logits = if kept.ids.len() == prompt.len() { kept.logits.clone() } else { None };
        let found = Found { sequence: runner.fork(&kept.sequence), logits };
        self.kept.push(kept);
        Some(found)
    }

    /// Keeps a beginning.
    pub fn keep(
        &mut self,
        runner: &mut Runner<'_>,
        ids: &[u32],
        sequence: &Sequence,
        logits: Option<&[f32]>,
    ) {
        if let Some(known) = self.kept.iter_mut().find(|kept| kept.ids == ids) {
            if known.logits.is_none() {
                known.logits = logits.map(<[f32]>::to_vec);
            }
            return;
        }
        let (sequence, logits) = (runner.fork(sequence), logits.map(<[f32]>::to_vec));
        self.kept.push(Kept { ids: ids.to_vec(), sequence, logits });
    }

    /// Gives up the beginnings that were used longest ago until sequences hold at most `pages` pages, or nothing is kept.
    pub fn shrink(&mut self, runner: &mut Runner<'_>, pages: usize) {
        while runner.pages_in_use() > pages && !self.kept.is_empty() {
            runner.finish(self.kept.remove(0).sequence);
        }
    }
}
