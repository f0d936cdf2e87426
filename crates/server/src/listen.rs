//! Connections: taken on, kept within limits, and brought to an orderly end.

use crate::{
    about, api,
    refusal::Refusing,
    scheduler::Scheduler,
    settings::Settings,
    state::Shared,
    telemetry,
    template::{ChatTemplate, TemplateError},
};
use blackletter_engine::{ModelFiles, Pipeline};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore, time};

/// Headers of a request.
const MOST_HEADERS: usize = 64;

/// Bytes of a request's head.
const HEAD: usize = 32 << 10;

/// Time between two rounds of upkeep of the figures.
const UPKEEP: Duration = Duration::from_secs(5);

/// A server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The system refuses a thread or a signal.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
    /// The model has no tokenizer.
    #[error("a server needs a model with a tokenizer")]
    NoTokenizer,
    /// The model's template cannot be used.
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// A server that listens.
pub struct Running {
    /// Where.
    pub address: SocketAddr,
    listener: TcpListener,
    shared: Arc<Shared>,
}

/// Serves until the process is told to end (SIGTERM, or Ctrl-C), then lets requests in progress finish. `started` is
/// told the address.
///
/// # Errors
/// When the server cannot start.
pub fn serve(
    settings: Settings,
    pipeline: Pipeline,
    files: &ModelFiles,
    started: impl FnOnce(SocketAddr),
) -> Result<(), ServeError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        let ended = signals()?;
        let running = start(settings, pipeline, files).await?;
        started(running.address);
        running.until(ended).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    ended
}

/// Waits for the process to be told to end.
fn signals() -> io::Result<impl Future<Output = ()>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
    }
    #[cfg(not(unix))]
    Ok(async {
        let _ = tokio::signal::ctrl_c().await;
    })
}

/// Begins to listen.
///
/// # Errors
/// When the address is taken, or the model has no tokenizer.
pub async fn start(
    settings: Settings,
    pipeline: Pipeline,
    files: &ModelFiles,
) -> Result<Running, ServeError> {
    telemetry::install();
    let template = ChatTemplate::load(files, pipeline.tokenizer().ok_or(ServeError::NoTokenizer)?)?;
    let address = settings.address;
    let listener =
        TcpListener::bind(address).await.map_err(|source| ServeError::Listen { address, source })?;
    let address = listener.local_addr()?;
    let about = about::document(&settings, files, &pipeline, &template);
    let pipeline = Arc::new(pipeline);
    let scheduler = Scheduler::start(pipeline.clone(), settings.batch(), settings.queue)?;
    let shared = Arc::new(Shared::new(settings, pipeline, template, about, scheduler));
    Ok(Running { address, listener, shared })
}

impl Running {
    /// Serves until `end`, then lets requests in progress finish, for as long as the settings allow.
    pub async fn until(self, end: impl Future<Output = ()>) {
        let Self { listener, shared, .. } = self;
        let router = api::router(shared.clone());
        let graceful = GracefulShutdown::new();
        let places = Arc::new(Semaphore::new(shared.settings.max_connections));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(shared.settings.read_timeout)
            .max_headers(MOST_HEADERS)
            .max_buf_size(HEAD);
        let mut upkeep = time::interval(UPKEEP);
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                () = &mut end => break,
                _ = upkeep.tick() => {
                    telemetry::upkeep();
                    continue;
                }
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Too many open files, most likely: wait for some to close.
                time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // Beyond the limit a connection is closed at once; what it would have waited for is unknown.
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let _ = stream.set_nodelay(true);
            let service = TowerToHyperService::new(router.clone());
            let stream = Refusing::new(TokioIo::new(stream), shared.settings.read_timeout);
            let connection = graceful.watch(http.serve_connection(stream, service));
            tokio::spawn(async move {
                // A client that breaks off is no matter of ours.
                let _ = connection.await;
                drop(place);
            });
        }
        drop(listener);
        shared.ending.store(true, Ordering::Relaxed);
        let drain = shared.settings.drain;
        // A little time is left for answers that say why they end.
        let leave = Duration::from_secs(1).min(drain / 4);
        let finished = graceful.shutdown();
        tokio::pin!(finished);
        if time::timeout(drain - leave, &mut finished).await.is_err() {
            shared.scheduler.fail_all();
            let _ = time::timeout(leave, finished).await;
        }
    }
}
