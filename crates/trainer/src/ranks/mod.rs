//! The processes that train together: one, or as many ranks as `mpirun` starts of a program with the feature `mpi`.
//!
//! Every rank makes all rows of a step and computes its share of the micro-batches; gradients are summed over the ranks, so that
//! all of them make the same update. The first rank alone writes: metrics, checkpoints, samples.

#[cfg(feature = "mpi")]
mod link;

use crate::error::TrainError;
use std::sync::OnceLock;

/// This process among those that train together.
pub struct Ranks {
    rank: usize,
    count: usize,
    #[cfg(feature = "mpi")]
    link: Option<link::Link>,
}

static RANKS: OnceLock<Ranks> = OnceLock::new();

impl Ranks {
    /// Joins the other ranks, the first time that it is called.
    pub fn join() -> &'static Self {
        RANKS.get_or_init(Self::new)
    }

    /// One process that trains by itself.
    pub const fn alone() -> Self {
        Self {
            rank: 0,
            count: 1,
            #[cfg(feature = "mpi")]
            link: None,
        }
    }

    #[cfg(not(feature = "mpi"))]
    fn new() -> Self {
        Self::alone()
    }

    #[cfg(feature = "mpi")]
    fn new() -> Self {
        match link::Link::open() {
            Some((link, rank, count)) if count > 1 => Self { rank, count, link: Some(link) },
            Some((link, ..)) => {
                link.close();
                Self::alone()
            }
            None => Self::alone(),
        }
    }

    /// How many ranks there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Whether this one writes.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// This rank's micro-batch of a round, in which every rank gets one, as long as there are any.
    pub fn share<'b, T>(&self, of: &'b [T], round: usize) -> Option<&'b T> {
        of.get(round * self.count + self.rank)
    }

    /// Begins to add up `values` over all ranks, element by element, while this one goes on. All ranks begin the same sums in
    /// the same order.
    ///
    /// # Errors
    /// When the ranks do not hear each other any more.
    #[cfg_attr(not(feature = "mpi"), allow(unused_variables))]
    pub fn start_sum(&self, values: Vec<f32>) -> Result<(), TrainError> {
        #[cfg(feature = "mpi")]
        if let Some(link) = &self.link {
            return link.start(link::Sum::Gradient(values)).ok_or_else(lost);
        }
        Err(lost())
    }

    /// The next sum of those that were begun.
    ///
    /// # Errors
    /// As [`Self::start_sum`].
    pub fn finish_sum(&self) -> Result<Vec<f32>, TrainError> {
        #[cfg(feature = "mpi")]
        if let Some(link) = &self.link
            && let Some(link::Sum::Gradient(sum)) = link.finish()
        {
            return Ok(sum);
        }
        Err(lost())
    }

    /// Adds up `values` over all ranks and waits for the sums. No sum of [`Self::start_sum`] is open.
    ///
    /// # Errors
    /// As [`Self::start_sum`].
    #[cfg_attr(not(feature = "mpi"), allow(unused_variables))]
    pub fn sum(&self, values: &mut [f64]) -> Result<(), TrainError> {
        if self.count == 1 {
            return Ok(());
        }
        #[cfg(feature = "mpi")]
        if let Some(link) = &self.link
            && link.start(link::Sum::Numbers(values.to_vec())).is_some()
            && let Some(link::Sum::Numbers(sum)) = link.finish()
        {
            values.copy_from_slice(&sum);
            return Ok(());
        }
        Err(lost())
    }

    /// Waits until all ranks have come here.
    ///
    /// # Errors
    /// As [`Self::start_sum`].
    pub fn wait(&self) -> Result<(), TrainError> {
        self.sum(&mut [0.0])
    }

    /// Ends the connection, after which `mpirun` knows that this rank has come to its end as it should.
    pub fn leave(&self) {
        #[cfg(feature = "mpi")]
        if let Some(link) = &self.link {
            link.close();
        }
    }
}

fn lost() -> TrainError {
    TrainError::Mismatch("the connection to the other ranks is lost: the run goes on with --resume".into())
}
