//! A program without mobula that loads a library with mobula, as an interpreter loads an extension.
//!
//! `MOBULA_TEST_HOST` chooses its work: `init` starts a session at once, `become_worker` first lets the library take
//! over.

use std::ffi::CString;
use std::path::Path;

fn main() {
    let program = std::env::current_exe().expect("there is a file of this program");
    let path = library(&program);
    let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("no zero in a path");
    // SAFETY: the library is this project's, and its functions take nothing and return nothing.
    unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
        assert!(!library.is_null(), "no library at {}", path.display());
        let call = |name: &std::ffi::CStr| {
            let function = libc::dlsym(library, name.as_ptr());
            assert!(!function.is_null(), "no {name:?}");
            std::mem::transmute::<*mut libc::c_void, extern "C" fn()>(function)();
        };
        if std::env::var("MOBULA_TEST_HOST").as_deref() == Ok("become_worker") {
            call(c"mobula_test_become_worker");
        }
        call(c"mobula_test_main");
    }
}

/// The library is built beside this program, as a dependency of it.
fn library(program: &Path) -> std::path::PathBuf {
    let directory = program.parent().expect("a file is in a directory");
    ["deps", "."]
        .map(|folder| directory.join(folder).join("libmobula_test_library.so"))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no libmobula_test_library.so near {}", program.display()))
}
