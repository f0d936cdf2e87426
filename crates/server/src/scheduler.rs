//! The thread that owns the running batch.
//!
//! Requests come over a channel, in groups of the prompts of one HTTP request; groups take turns, so that one with many
//! prompts does not keep the others waiting. What is made goes back over a channel for each prompt; whoever drops its end has left.

use crate::{error::ApiError, telemetry};
use blackletter_engine::{
    Batch, BatchLimits, EngineError, FinishReason, Listener, Pipeline, Request, TokenInfo,
};
use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use tokio::sync::mpsc as tasks;

/// What comes of a prompt.
#[derive(Debug)]
pub enum Event {
    /// The prompt's tokens from the second on.
    Prompt(Vec<TokenInfo>),
    /// A new token of a continuation.
    Token {
        /// Which continuation.
        choice: usize,
        /// The token.
        id: u32,
        /// Its log-probability, when asked for.
        info: Option<TokenInfo>,
    },
    /// A continuation has ended by itself.
    Finished {
        /// Which.
        choice: usize,
        /// Why.
        reason: FinishReason,
    },
    /// Nothing more comes.
    Failed(ApiError),
}

/// A prompt's continuations as they come. To drop it is to leave.
pub struct Stream {
    /// What comes.
    pub events: tasks::UnboundedReceiver<Event>,
    /// Set to end a continuation.
    pub enough: Vec<Arc<AtomicBool>>,
}

/// The way to the engine's thread.
pub struct Scheduler {
    sender: mpsc::Sender<Command>,
    waiting: Arc<AtomicUsize>,
    running: Arc<AtomicUsize>,
    queue: usize,
    thread: JoinHandle<()>,
}

enum Command {
    Add(Vec<(Request, Client)>),
    FailAll,
    End,
}

struct Client {
    sender: tasks::UnboundedSender<Event>,
    enough: Vec<Arc<AtomicBool>>,
    since: Instant,
    /// Until the first token.
    place: Option<Place>,
    last: Option<Instant>,
}

/// A place in the queue, given up when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Scheduler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives none.
    pub fn start(pipeline: Arc<Pipeline>, limits: BatchLimits, queue: usize) -> std::io::Result<Self> {
        let (sender, receiver) = mpsc::channel();
        let (waiting, running) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let busy = running.clone();
        let thread = thread::Builder::new()
            .name("engine".into())
            .spawn(move || run(&pipeline, limits, &receiver, &busy))?;
        Ok(Self { sender, waiting, running, queue, thread })
    }

    /// Prompts that wait for a place.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Continuations that run.
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    /// Whether the thread is there to take requests on.
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Hands the prompts of one HTTP request over; their streams are in the same order.
    ///
    /// # Errors
    /// When the queue is full, or the thread has ended.
    pub fn submit(&self, requests: Vec<Request>) -> Result<Vec<Stream>, ApiError> {
        let before = self.waiting.fetch_add(requests.len(), Ordering::Relaxed);
        let places: Vec<Place> = requests.iter().map(|_| Place(self.waiting.clone())).collect();
        if before + requests.len() > self.queue.max(1) {
            return Err(ApiError::busy(before));
        }
        let mut streams = Vec::new();
        let mut group = Vec::new();
        for (request, place) in requests.into_iter().zip(places) {
            let (sender, events) = tasks::unbounded_channel();
            let enough: Vec<_> = (0..request.choices).map(|_| Arc::new(AtomicBool::new(false))).collect();
            streams.push(Stream { events, enough: enough.clone() });
            group.push((
                request,
                Client { sender, enough, since: Instant::now(), place: Some(place), last: None },
            ));
        }
        self.sender.send(Command::Add(group)).map_err(|_| ApiError::internal("the engine has ended"))?;
        Ok(streams)
    }

    /// Ends all requests in progress.
    pub fn fail_all(&self) {
        let _ = self.sender.send(Command::FailAll);
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // The thread ends after its step. Nobody waits for that: a long prompt would hold up the end of the process.
        let _ = self.sender.send(Command::End);
    }
}

fn run(pipeline: &Pipeline, limits: BatchLimits, receiver: &mpsc::Receiver<Command>, busy: &AtomicUsize) {
    let mut batch: Batch<'_, Client> = Batch::new(&pipeline.engine, limits);
    let mut groups: VecDeque<VecDeque<(Request, Client)>> = VecDeque::new();
    let mut counted = (0, 0);
    loop {
        let idle = batch.is_idle() && groups.is_empty();
        // With nothing to do, wait; else take what is there and go on.
        let mut command = if idle {
            match receiver.recv_timeout(Duration::from_secs(3600)) {
                Ok(command) => Some(command),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        } else {
            receiver.try_recv().ok()
        };
        while let Some(taken) = command {
            match taken {
                Command::Add(group) => groups.push_back(group.into()),
                Command::FailAll => {
                    let ending = ApiError::ending();
                    for (_, client) in groups.drain(..).flatten() {
                        let _ = client.sender.send(Event::Failed(ending.clone()));
                    }
                    batch.fail_all(&EngineError::Empty(ENDING));
                }
                Command::End => return,
            }
            command = receiver.try_recv().ok();
        }
        // One group after the other gives a prompt; the batch holds no more than it can begin with.
        groups.iter_mut().for_each(|group| group.retain(|(_, client)| !client.is_gone()));
        groups.retain(|group| !group.is_empty());
        while batch.waiting() == 0
            && batch.running() < limits.sequences
            && let Some(mut group) = groups.pop_front()
        {
            if let Some((request, client)) = group.pop_front() {
                batch.add(request, client);
            }
            if !group.is_empty() {
                groups.push_back(group);
            }
        }
        batch.step();
        busy.store(batch.running(), Ordering::Relaxed);
        let tokens = batch.prompt_tokens();
        telemetry::prompt_tokens(tokens.0 - counted.0, tokens.1 - counted.1);
        telemetry::batch(batch.running(), groups.iter().map(VecDeque::len).sum::<usize>() + batch.waiting());
        counted = tokens;
    }
}

/// How [`Batch::fail_all`] is told from other failures.
const ENDING: &str = "the server is ending";

impl Listener for Client {
    fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    fn prompt(&mut self, tokens: Vec<TokenInfo>) {
        self.place = None;
        let _ = self.sender.send(Event::Prompt(tokens));
    }

    fn token(&mut self, choice: usize, id: u32, info: Option<TokenInfo>) -> ControlFlow<()> {
        let now = Instant::now();
        match self.last {
            None => telemetry::first_token(now - self.since),
            Some(last) if choice == 0 => telemetry::next_token(now - last),
            Some(_) => {}
        }
        if choice == 0 {
            self.last = Some(now);
        }
        self.place = None;
        telemetry::token();
        let _ = self.sender.send(Event::Token { choice, id, info });
        let enough = self.enough.get(choice).is_some_and(|e| e.load(Ordering::Relaxed));
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn finish(&mut self, choice: usize, reason: FinishReason) {
        self.place = None;
        let _ = self.sender.send(Event::Finished { choice, reason });
    }

    fn fail(&mut self, error: &EngineError) {
        self.place = None;
        let error = match error {
            EngineError::Empty(ENDING) => ApiError::ending(),
            other => ApiError::from(other),
        };
        let _ = self.sender.send(Event::Failed(error));
    }
}
