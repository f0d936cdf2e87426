//! The connection between ranks by MPI. One thread calls MPI, so that sums are made while others compute.

use mpi::{
    Threading,
    collective::SystemOperation,
    environment,
    traits::{Communicator, CommunicatorCollectives},
};
use std::{
    sync::{
        Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

/// Values that are summed over all ranks, or their sums.
pub enum Sum {
    /// Of a gradient.
    Gradient(Vec<f32>),
    /// Of losses and the like.
    Numbers(Vec<f64>),
}

/// A connection.
pub struct Link {
    orders: Mutex<Option<Sender<Sum>>>,
    sums: Mutex<Receiver<Sum>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Link {
    /// Begins MPI; gives this process' rank and the number of ranks. `None` where MPI cannot be begun.
    pub fn open() -> Option<(Self, usize, usize)> {
        let (orders, received) = channel::<Sum>();
        let (send, sums) = channel();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            let Some((universe, _)) = environment::initialize_with_threading(Threading::Funneled) else {
                return;
            };
            let world = universe.world();
            // Numbers of processes are small and not negative.
            if tell.send((world.rank() as usize, world.size() as usize)).is_err() {
                return;
            }
            for order in received {
                let sum = match order {
                    Sum::Gradient(values) => {
                        let mut sum = vec![0.0; values.len()];
                        world.all_reduce_into(&values[..], &mut sum[..], SystemOperation::sum());
                        Sum::Gradient(sum)
                    }
                    Sum::Numbers(values) => {
                        let mut sum = vec![0.0; values.len()];
                        world.all_reduce_into(&values[..], &mut sum[..], SystemOperation::sum());
                        Sum::Numbers(sum)
                    }
                };
                if send.send(sum).is_err() {
                    return;
                }
            }
            // Here the universe ends, and MPI with it.
        });
        let (rank, count) = told.recv().ok()?;
        let link = Self {
            orders: Mutex::new(Some(orders)),
            sums: Mutex::new(sums),
            thread: Mutex::new(Some(thread)),
        };
        Some((link, rank, count))
    }

    /// Begins a sum.
    pub fn start(&self, values: Sum) -> Option<()> {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        orders.as_ref()?.send(values).ok()
    }

    /// Waits for the next sum.
    pub fn finish(&self) -> Option<Sum> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
    }

    /// Ends MPI.
    pub fn close(&self) {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = thread.join();
        }
    }
}
