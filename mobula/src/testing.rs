//! Sessions for tests.

use std::sync::LazyLock;

use mobula_runtime::Session;

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
/// A test that needs a session of its own, with other options or to end it, belongs in a test program of its own, which
/// is another process.
///
/// # Panics
/// If no session can be had: the panic says why.
pub fn session() -> &'static Session {
    static SESSION: LazyLock<Session> = LazyLock::new(|| match Builder::new().init_or_join() {
        Ok(session) => session,
        Err(error) => panic!("tests have no session: {error}"),
    });
    &SESSION
}
