//! Code that has to know of each change before it is acknowledged.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use super::view::View;

/// Receives every [`View`] before the push that brought it is acknowledged. Any `Fn(&View)` is one.
pub trait DirectoryFollower: Send + Sync {
    /// Takes the next view. Must return soon and must not call the directory.
    fn update(&self, view: &View);

    /// Completes when nothing more goes to an instance that the views so far have removed. Must take well below a
    /// second: that is how long a registry waits for the acknowledgement.
    fn settled(&self) -> Settled {
        Box::pin(std::future::ready(()))
    }
}

/// What [`DirectoryFollower::settled`] returns.
pub type Settled = Pin<Box<dyn Future<Output = ()> + Send>>;

impl<F: Fn(&View) + Send + Sync> DirectoryFollower for F {
    fn update(&self, view: &View) {
        self(view);
    }
}

/// All followers of a directory. The lock is held throughout a change, so that changes happen one after another while
/// readers of the view wait for none of them.
#[derive(Default)]
pub(super) struct Followers(Mutex<Vec<Arc<dyn DirectoryFollower>>>);

impl fmt::Debug for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Followers").finish_non_exhaustive()
    }
}

impl Followers {
    pub(super) fn lock(&self) -> MutexGuard<'_, Vec<Arc<dyn DirectoryFollower>>> {
        self.0.lock()
    }
}
