//! The waker of a task that registers it several times per request.

use std::sync::OnceLock;
use std::task::Waker;

use futures_util::task::AtomicWaker;

/// The waker of one task. A task hardly ever changes its waker, and to compare it with the first one costs a quarter of a
/// registration.
#[derive(Debug, Default)]
pub(crate) struct TaskWaker {
    first: OnceLock<Waker>,
    other: AtomicWaker,
}

impl TaskWaker {
    /// The next call of [`TaskWaker::wake`] wakes `waker`.
    #[inline]
    pub(crate) fn register(&self, waker: &Waker) {
        if !self.first.get_or_init(|| waker.clone()).will_wake(waker) {
            self.other.register(waker);
        }
    }

    /// Wakes the task.
    pub(crate) fn wake(&self) {
        self.other.wake();
        if let Some(waker) = self.first.get() {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::task::Wake;

    use super::*;

    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn the_last_waker_is_woken() {
        let (first, second) = (Arc::new(Woken(AtomicUsize::new(0))), Arc::new(Woken(AtomicUsize::new(0))));
        let waker = TaskWaker::default();
        waker.wake();
        waker.register(&first.clone().into());
        waker.wake();
        waker.register(&second.clone().into());
        waker.wake();
        waker.register(&first.clone().into());
        waker.wake();
        assert_eq!(second.0.load(Relaxed), 1);
        assert!(first.0.load(Relaxed) >= 2);
    }
}
