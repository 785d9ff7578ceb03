//! Sessions for tests.

use std::fmt;
use std::ops::Deref;
use std::sync::LazyLock;

use mobula_runtime::Session;
use parking_lot::{Mutex, MutexGuard};

use crate::session::Builder;

/// The session of this process's tests, which run at the same time in one process, as `cargo test` has them. The first
/// call starts it, or joins the one that `MOBULA_ADDRESS` names; it ends with the process. Its options come from the
/// [environment](Builder#environment-variables). A session that the program has started before is used instead, as long
/// as it lasts.
///
/// ```
/// #[mobula::remote]
/// fn double(x: u32) -> u32 {
///     2 * x
/// }
///
/// fn test_of_one_thing() {
///     mobula::testing::session();
///     assert_eq!(double::remote(4).get().unwrap(), 8);
/// }
///
/// // The test harness calls each in a thread of its own.
/// let another = std::thread::spawn(test_of_one_thing);
/// test_of_one_thing();
/// another.join().expect("it does not panic");
/// ```
///
/// [`own_session`] starts a session for one test, with its own options. All tests of such a test program must do the
/// same.
///
/// # Panics
/// If there can be no session. The panic gives the reason.
pub fn session() -> &'static Session {
    static SESSION: LazyLock<Session> = LazyLock::new(|| match Builder::new().init_or_join() {
        Ok(session) => session,
        Err(error) => panic!("tests have no session: {error}"),
    });
    &SESSION
}

/// Starts a session for one test, with its own options. The session ends when this is dropped.
///
/// A process has one session at a time, so tests that call this wait for each other. All tests of one program must call
/// this, or all must call [`session`]: the shared session does not end before the process.
///
/// ```
/// use mobula::Builder;
///
/// #[mobula::remote]
/// fn double(x: u32) -> u32 {
///     2 * x
/// }
///
/// fn test_with_one_worker() {
///     let session = mobula::testing::own_session(Builder::new().num_cpus(1));
///     assert_eq!(double::remote(4).get().unwrap(), 8);
///     drop(session); // all processes of the session have ended
/// }
///
/// // The test harness calls each in a thread of its own.
/// let another = std::thread::spawn(test_with_one_worker);
/// test_with_one_worker();
/// another.join().expect("it does not panic");
/// ```
///
/// # Panics
/// If the session does not start, or the process has a session from elsewhere. The message contains the reason.
#[must_use = "the session ends when it is dropped"]
pub fn own_session(builder: Builder) -> OwnSession {
    static SESSION_LOCK: Mutex<()> = Mutex::new(());
    let lock = SESSION_LOCK.lock();
    match builder.init() {
        Ok(session) => OwnSession { session, _lock: lock },
        Err(error) => panic!("the test has no session: {error}"),
    }
}

/// The session of one test; see [`own_session`].
///
/// ```
/// use mobula::testing::{OwnSession, own_session};
///
/// let session: OwnSession = own_session(mobula::Builder::new());
/// assert!(!session.client().stats()?.clients.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
pub struct OwnSession {
    // The session ends before another test can start one.
    session: Session,
    _lock: MutexGuard<'static, ()>,
}

impl Deref for OwnSession {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl fmt::Debug for OwnSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OwnSession").field(&self.session).finish()
    }
}
