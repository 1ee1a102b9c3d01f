//! Servers of one process.

use std::future::Future;
use std::pin::Pin;

use anyhow::anyhow;
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};

/// Servers that start and stop together. Dropped, they are aborted.
#[derive(Default)]
pub(super) struct ServerGroup {
    stop: watch::Sender<bool>,
    servers: JoinSet<anyhow::Result<()>>,
}

/// The shutdown parameter of a server's `run`.
pub(super) type StopSignal = Pin<Box<dyn Future<Output = ()> + Send>>;

impl ServerGroup {
    pub(super) fn start<Fut, E>(&mut self, run: impl FnOnce(StopSignal) -> Fut)
    where
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<anyhow::Error>,
    {
        let mut stop = self.stop.subscribe();
        let stop: StopSignal = Box::pin(async move { drop(stop.wait_for(|stop| *stop).await) });
        let run = run(stop);
        self.servers.spawn(async { run.await.map_err(Into::into) });
    }

    /// Waits until a server ends, which none should before [`ServerGroup::stop`].
    pub(super) async fn ended(&mut self) -> anyhow::Error {
        match self.servers.join_next().await {
            Some(ended) => flatten(ended).err().unwrap_or_else(|| anyhow!("it returned without an error")),
            None => std::future::pending().await,
        }
    }

    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        let mut result = Ok(());
        while let Some(ended) = self.servers.join_next().await {
            result = result.and(flatten(ended));
        }
        result
    }
}

fn flatten(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended.unwrap_or_else(|error| Err(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_fails_to_stop_does_not_cut_off_the_others() {
        let (stopped, mut others) = tokio::sync::mpsc::unbounded_channel();
        let mut servers = ServerGroup::default();
        servers.start(|stop| async move {
            stop.await;
            Err(std::io::Error::other("the first"))
        });
        for _ in 0..2 {
            let stopped = stopped.clone();
            servers.start(|stop| async move {
                stop.await;
                for _ in 0..1000 {
                    tokio::task::yield_now().await; // much later than the one that fails
                }
                let _ = stopped.send(());
                Ok::<_, std::io::Error>(())
            });
        }
        drop(stopped);
        assert_eq!(servers.stop().await.unwrap_err().to_string(), "the first");
        assert!(others.recv().await.is_some() && others.recv().await.is_some(), "cut off");
    }
}
