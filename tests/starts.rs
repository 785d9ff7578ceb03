//! A process becomes a worker. If these fail, a worker runs the program's `main`, or begins before the program's
//! constructors have run. Or a process that a worker starts takes itself for one, or a host that loads a library hangs.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use mobula_tests::{PATIENCE, session};

/// The number of the program's constructors that have run in this process.
static CONSTRUCTED: AtomicU32 = AtomicU32::new(0);
static TICKS: AtomicU32 = AtomicU32::new(0);

#[used]
// SAFETY: the section holds pointers to functions that are called once, before `main`; this one needs no argument.
#[unsafe(link_section = ".init_array")]
static FIRST: extern "C" fn() = construct;
#[used]
// SAFETY: as above. Those with a number come before those without, in the order of their numbers.
#[unsafe(link_section = ".init_array.65534")]
static NUMBERED: extern "C" fn() = construct;

/// Starts a thread that reads the environment without end, as a constructor may.
extern "C" fn construct() {
    CONSTRUCTED.fetch_add(1, Ordering::Relaxed);
    std::thread::spawn(|| {
        loop {
            TICKS.fetch_add(u32::from(std::env::var_os("PATH").is_some()), Ordering::Relaxed);
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    });
}

/// How many constructors have run here, and whether their threads go on.
#[mobula::remote]
fn constructed() -> (u32, bool) {
    let before = TICKS.load(Ordering::Relaxed);
    mobula_tests::eventually("a constructor's thread goes on", || TICKS.load(Ordering::Relaxed) > before);
    (CONSTRUCTED.load(Ordering::Relaxed), true)
}

/// The output of this program when a worker starts it.
#[mobula::remote]
fn starts_itself() -> String {
    let output = Command::new("/proc/self/exe").arg("--list").output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names in the environment that the session has put there.
#[mobula::remote]
fn environment() -> Vec<String> {
    std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("MOBULA_ROLE")).collect()
}

#[test]
fn a_worker_begins_when_every_constructor_has_run() {
    let _session = session(1);
    assert_eq!(constructed::remote().get_timeout(PATIENCE).unwrap(), (2, true));
}

#[test]
fn what_a_worker_starts_is_no_worker() {
    let _session = session(1);
    assert!(
        starts_itself::remote().get_timeout(PATIENCE).unwrap().contains("what_a_worker_starts_is_no_worker")
    );
    assert_eq!(environment::remote().get_timeout(PATIENCE).unwrap(), [""; 0]);
}

#[test]
fn an_argument_that_only_looks_like_a_role_is_refused() {
    let output = Command::new(std::env::current_exe().unwrap()).arg("mobula-role=00ff").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not of this build"), "{output:?}");
}

// ---- a library that is loaded while a program runs ----

/// Runs a program without mobula, which loads a library with mobula in it.
fn host(does: &str) -> (bool, String) {
    let program = env!("CARGO_BIN_EXE_mobula-test-host");
    let output = Command::new(program).env("MOBULA_TEST_HOST", does).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn a_session_in_a_loaded_library_says_that_its_host_makes_no_workers() {
    let (_, said) = host("init");
    assert!(said.contains("mobula::become_worker"), "{said}");
}

#[test]
fn a_host_that_lets_its_library_have_workers_has_some() {
    let (success, said) = host("become_worker");
    assert!(success && said.contains("square 9"), "{said}");
}
