//! The request to stop, and the tasks that are waited for once it is made.

use std::{future::Future, time::Duration};

use futures::{Stream, StreamExt as _, stream};
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};
use tonic::Status;

use crate::status::Reason;

/// Exit code after a second signal: 128 + SIGINT, as shells report it.
const ABORTED: i32 = 130;

/// Clones share the request and the tasks.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    tasks: TaskTracker,
}

impl Shutdown {
    /// Requested only by [`Shutdown::trigger`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Requested by SIGTERM or SIGINT; a second signal ends the process at once. To be called once, by `main`, within the
    /// runtime.
    ///
    /// # Errors
    /// When the system refuses the signal handlers.
    pub fn on_signal() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let requested = shutdown.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            tracing::info!(signal = name, "stopping; a second signal aborts");
            requested.trigger();
            let name = next().await;
            tracing::warn!(signal = name, "aborted");
            std::process::exit(ABORTED);
        });
        Ok(shutdown)
    }

    /// Requests the stop. Asking again changes nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the stop was requested.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once the stop is requested; owned, so it goes into any task.
    pub fn requested(&self) -> WaitForCancellationFutureOwned {
        self.token.clone().cancelled_owned()
    }

    /// The endless answers of a call, which at the shutdown end with a status that asks to connect again.
    pub fn end<T, S>(&self, answers: S) -> impl Stream<Item = Result<T, Status>> + use<T, S>
    where
        S: Stream<Item = Result<T, Status>>,
    {
        let end =
            stream::once(async { Err(Reason::Draining.status("the service is stopping; connect again")) });
        answers.take_until(self.requested()).chain(end)
    }

    /// Requested with this one, and also by itself: for a part that may stop alone. It has its own tasks.
    pub fn child(&self) -> Self {
        Self { token: self.token.child_token(), tasks: TaskTracker::new() }
    }

    /// Runs a task that [`Shutdown::drained`] waits for. The task listens to [`Shutdown::requested`] itself and finishes its
    /// work first.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.tasks.spawn(task)
    }

    /// Waits until every spawned task ended, at most for `timeout`.
    ///
    /// # Errors
    /// The number of tasks that are still running after it.
    pub async fn drained(&self, timeout: Duration) -> Result<(), usize> {
        self.tasks.close();
        tokio::time::timeout(timeout, self.tasks.wait()).await.map_err(|_| self.tasks.len())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Lines},
        process::{Child, ChildStderr, Command, Stdio},
    };

    use rustix::process::{Pid, Signal, kill_process};

    use super::*;

    /// Set in the process that the signals are sent to: this test binary again.
    const SIGNALLED: &str = "WEIR_TEST_SIGNALLED";

    #[tokio::test]
    async fn tasks_finish_their_work_after_the_request() {
        let shutdown = Shutdown::new();
        let requested = shutdown.requested();
        let task = shutdown.spawn(async move {
            requested.await;
            "flushed"
        });
        assert!(!shutdown.is_requested());
        shutdown.trigger();
        shutdown.drained(Duration::from_secs(60)).await.unwrap();
        assert_eq!(task.await.unwrap(), "flushed");
    }

    #[tokio::test]
    async fn endless_answers_end_with_the_request_to_connect_again() {
        let shutdown = Shutdown::new();
        let mut answers = std::pin::pin!(shutdown.end(stream::repeat(()).map(Ok::<_, Status>)));
        assert!(matches!(answers.next().await, Some(Ok(()))));
        shutdown.trigger();
        let end = answers.next().await.unwrap().unwrap_err();
        assert_eq!(end.code(), tonic::Code::Unavailable);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn tasks_that_do_not_end_are_counted() {
        let shutdown = Shutdown::new();
        let _task = shutdown.spawn(std::future::pending::<()>());
        shutdown.trigger();
        assert_eq!(shutdown.drained(Duration::ZERO).await, Err(1));
    }

    #[test]
    fn a_child_stops_with_its_parent_but_not_the_reverse() {
        let parent = Shutdown::new();
        let (alone, together) = (parent.child(), parent.child());
        alone.trigger();
        assert!(!parent.is_requested());
        parent.trigger();
        assert!(together.is_requested());
    }

    #[test]
    fn a_signal_requests_the_stop_and_a_second_one_aborts() {
        if std::env::var_os(SIGNALLED).is_some() {
            return wait_for_signals();
        }
        for (first, second) in [(Signal::TERM, Signal::INT), (Signal::INT, Signal::TERM)] {
            let mut process = Signalled::start();
            process.until_says("ready");
            process.send(first);
            process.until_says("requested");
            assert!(
                process.child.try_wait().unwrap().is_none(),
                "after one signal it is the process that ends itself"
            );
            process.send(second);
            let status = process.child.wait().unwrap();
            assert_eq!(status.code(), Some(ABORTED), "{first:?}, then {second:?}: {status}");
        }
    }

    /// Drains for ever, so that only a second signal ends it; or, if the signals do nothing, with a code that is not theirs.
    #[tokio::main(flavor = "current_thread")]
    async fn wait_for_signals() {
        let shutdown = Shutdown::on_signal().unwrap();
        assert!(!shutdown.is_requested());
        eprintln!("ready");
        let drain = async {
            shutdown.requested().await;
            eprintln!("requested");
            std::future::pending::<()>().await;
        };
        let _ = tokio::time::timeout(Duration::from_secs(20), drain).await;
    }

    /// A process that waits for signals; it does not outlive the test.
    struct Signalled {
        child: Child,
        says: Lines<BufReader<ChildStderr>>,
    }

    impl Signalled {
        fn start() -> Self {
            let test = "shutdown::tests::a_signal_requests_the_stop_and_a_second_one_aborts";
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", test, "--nocapture"])
                .env(SIGNALLED, "")
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let says = BufReader::new(child.stderr.take().unwrap()).lines();
            Self { child, says }
        }

        fn until_says(&mut self, what: &str) {
            let said = self.says.by_ref().map_while(Result::ok).any(|line| line == what);
            assert!(said, "it ended ({:?}) before it was {what}", self.child.wait());
        }

        fn send(&self, signal: Signal) {
            kill_process(Pid::from_child(&self.child), signal).unwrap();
        }
    }

    impl Drop for Signalled {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
