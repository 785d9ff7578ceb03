//! System calls that fail on demand: this program's own `mmap`, `sendmsg` and so on stand in front of the C library's.
//!
//! All Rust code that is linked into an executable calls the symbol that the executable defines. So the calls of store,
//! client and the standard library come by here. Calls inside the C library (memory for `malloc`, stacks of threads) do
//! not. A process counts only if it was given a [`Control`]; then the N-th of the calls that its control names fails
//! with an error of the control's choice. All other calls go on to the C library.
#![allow(unreachable_pub, reason = "found by the linker")]

use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::fs::OpenOptions;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use libc::{
    epoll_event, mode_t, msghdr, nfds_t, off_t, pollfd, pthread_attr_t, pthread_t, size_t, sockaddr,
    socklen_t, ssize_t,
};

/// Set in the environment of a process whose calls fail: the path of its control.
pub const CONTROL: &str = "MOBULA_FAILING_CONTROL";

/// In the place of an error number: the call succeeds, but the descriptors that it brings are lost, as when the process
/// has no room for them.
pub const DESCRIPTORS_LOST: c_int = -1;

/// The calls that are to fail. The process that decides shares this with the one in which they fail.
#[derive(Debug)]
#[repr(C)]
pub struct Control {
    /// Place of the call in [`NAMES`], plus one; 0 for none.
    call: AtomicU32,
    errno: AtomicU32,
    /// The first that fails, counted from 1.
    nth: AtomicU64,
    /// How many calls fail from there on.
    times: AtomicU64,
    counted: AtomicU64,
    failed: AtomicU64,
}

static MINE: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());

impl Control {
    /// Maps the control at a path, made if need be. It stays mapped.
    pub fn map(path: &Path) -> &'static Control {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap();
        file.set_len(4096).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, of a file that is as long.
        let base = unsafe {
            libc::mmap(std::ptr::null_mut(), 4096, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        assert_ne!(base, libc::MAP_FAILED);
        // SAFETY: mapped for the rest of the process's life, aligned, zeroed; reached only atomically.
        unsafe { &*base.cast() }
    }

    /// Lets the `nth` call of a name, and those behind it up to `times` in all, fail from now on.
    pub fn arm(&self, name: &str, errno: c_int, nth: u64, times: u64) {
        self.disarm();
        let call = NAMES.iter().position(|known| *known == name).expect("a call that is wrapped");
        for (word, value) in [(&self.nth, nth), (&self.times, times), (&self.counted, 0), (&self.failed, 0)] {
            word.store(value, Ordering::Relaxed);
        }
        self.errno.store(errno as u32, Ordering::Relaxed);
        self.call.store(call as u32 + 1, Ordering::Release);
    }

    /// Nothing fails any more.
    pub fn disarm(&self) {
        self.call.store(0, Ordering::Release);
    }

    /// How often the call has failed since it was armed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Acquire)
    }

    /// How often the call was made since it was armed.
    pub fn counted(&self) -> u64 {
        self.counted.load(Ordering::Acquire)
    }

    fn hit(&self, call: usize) -> Option<c_int> {
        if self.call.load(Ordering::Acquire) != call as u32 + 1 {
            return None;
        }
        let count = self.counted.fetch_add(1, Ordering::AcqRel) + 1;
        let nth = self.nth.load(Ordering::Relaxed);
        if count < nth || count - nth >= self.times.load(Ordering::Relaxed) {
            return None;
        }
        self.failed.fetch_add(1, Ordering::AcqRel);
        Some(self.errno.load(Ordering::Relaxed) as c_int)
    }
}

/// Takes up the control of this process, if it was given one.
pub fn begin() {
    if let Some(path) = std::env::var_os(CONTROL) {
        MINE.store(std::ptr::from_ref(Control::map(Path::new(&path))).cast_mut(), Ordering::Release);
    }
}

fn hit(call: usize) -> Option<c_int> {
    // SAFETY: null, or what `begin` stored, which stays.
    unsafe { MINE.load(Ordering::Acquire).as_ref() }?.hit(call)
}

fn set_errno(errno: c_int) {
    // SAFETY: the place of this thread's error number.
    unsafe { *libc::__errno_location() = errno };
}

/// The C library's function of a name.
fn next(cache: &AtomicPtr<c_void>, name: &CStr) -> *mut c_void {
    let known = cache.load(Ordering::Relaxed);
    if !known.is_null() {
        return known;
    }
    // SAFETY: a name that ends with a zero.
    let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
    if found.is_null() {
        // SAFETY: always.
        unsafe { libc::abort() };
    }
    cache.store(found, Ordering::Relaxed);
    found
}

/// `fails` says what the call returns when it has failed with the error number that it is given, and `if` which calls
/// count.
macro_rules! wrappers {
    ($($name:ident($($arg:ident: $type:ty),*) -> $return:ty, fails $fails:expr, if $counts:expr;)*) => {
        /// The names of all calls that can be made to fail.
        pub const NAMES: &[&str] = &[$(stringify!($name)),*];

        #[expect(non_camel_case_types, reason = "places in the list of names")]
        enum Place { $($name),* }

        $(
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $name($($arg: $type),*) -> $return {
                static NEXT: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());
                let fails: fn(c_int) -> $return = $fails;
                let failure = if $counts { hit(Place::$name as usize) } else { None };
                if let Some(errno) = failure.filter(|errno| *errno != DESCRIPTORS_LOST) {
                    set_errno(errno);
                    return fails(errno);
                }
                let name = concat!(stringify!($name), "\0");
                let name = CStr::from_bytes_with_nul(name.as_bytes()).expect("a zero at the end");
                // SAFETY: the C library's function of this name, which takes these arguments or is variadic and reads
                // no more of them; the caller's requirements are its own.
                let result = unsafe {
                    let function: unsafe extern "C" fn($($type),*) -> $return =
                        std::mem::transmute(next(&NEXT, name));
                    function($($arg),*)
                };
                if failure.is_some() {
                    // SAFETY: only `recvmsg` is armed so; its first two arguments are what they are.
                    unsafe { lose_descriptors([$($arg as usize),*].as_slice(), result as ssize_t) };
                }
                result
            }
        )*
    };
}

wrappers! {
    mmap(at: *mut c_void, len: size_t, protection: c_int, flags: c_int, fd: c_int, offset: off_t) -> *mut c_void,
        fails |_| libc::MAP_FAILED, if is_ours(len, flags, fd);
    madvise(at: *mut c_void, len: size_t, advice: c_int) -> c_int, fails |_| -1, if true;
    memfd_create(name: *const c_char, flags: c_uint) -> c_int, fails |_| -1, if true;
    ftruncate(fd: c_int, len: off_t) -> c_int, fails |_| -1, if true;
    fallocate(fd: c_int, mode: c_int, offset: off_t, len: off_t) -> c_int, fails |_| -1, if true;
    fchmod(fd: c_int, mode: mode_t) -> c_int, fails |_| -1, if true;
    fstat(fd: c_int, out: *mut libc::stat) -> c_int, fails |_| -1, if true;
    // The checks of `OwnedFd` in debug builds are not the program's own calls.
    fcntl(fd: c_int, command: c_int, argument: c_long) -> c_int, fails |_| -1, if command != libc::F_GETFD;
    open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int, fails |_| -1, if true;
    open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int, fails |_| -1, if true;
    eventfd(value: c_uint, flags: c_int) -> c_int, fails |_| -1, if true;
    socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int, fails |_| -1, if true;
    bind(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int, fails |_| -1, if true;
    listen(fd: c_int, backlog: c_int) -> c_int, fails |_| -1, if true;
    connect(fd: c_int, address: *const sockaddr, len: socklen_t) -> c_int, fails |_| -1, if true;
    accept4(fd: c_int, address: *mut sockaddr, len: *mut socklen_t, flags: c_int) -> c_int, fails |_| -1, if true;
    getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, len: *mut socklen_t) -> c_int,
        fails |_| -1, if true;
    setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: socklen_t) -> c_int,
        fails |_| -1, if true;
    sendmsg(fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t, fails |_| -1, if true;
    recvmsg(fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t, fails |_| -1, if true;
    poll(fds: *mut pollfd, count: nfds_t, timeout: c_int) -> c_int, fails |_| -1, if true;
    // Bells have eight bytes; the answers and the log of a test's process have more, and are its own.
    write(fd: c_int, bytes: *const c_void, len: size_t) -> ssize_t, fails |_| -1, if len == 8;
    read(fd: c_int, bytes: *mut c_void, len: size_t) -> ssize_t, fails |_| -1, if len == 8;
    chmod(path: *const c_char, mode: mode_t) -> c_int, fails |_| -1, if true;
    flock(fd: c_int, operation: c_int) -> c_int, fails |_| -1, if operation & libc::LOCK_UN == 0;
    pthread_create(
        thread: *mut pthread_t,
        attributes: *const pthread_attr_t,
        start: *mut c_void,
        argument: *mut c_void
    ) -> c_int, fails |errno| errno, if true;
    epoll_create1(flags: c_int) -> c_int, fails |_| -1, if true;
    epoll_ctl(fd: c_int, operation: c_int, target: c_int, event: *mut epoll_event) -> c_int, fails |_| -1, if true;
    epoll_wait(fd: c_int, events: *mut epoll_event, max: c_int, timeout: c_int) -> c_int, fails |_| -1, if true;
}

/// Whether a mapping is the store's or the client's: shared, a reservation, or the page that notices forks; threads of
/// the standard library make others.
fn is_ours(len: size_t, flags: c_int, fd: c_int) -> bool {
    fd >= 0 || flags & libc::MAP_NORESERVE != 0 || len == 4096
}

/// Closes the descriptors that a message brought, and says that they did not fit.
///
/// # Safety
/// The first two arguments are those of `recvmsg`, which has filled the header if it succeeded.
unsafe fn lose_descriptors(arguments: &[usize], result: ssize_t) {
    if result < 0 {
        return;
    }
    let message = std::ptr::with_exposed_provenance_mut::<msghdr>(arguments[1]);
    // SAFETY: the caller's; the kernel has filled the control part as far as its length says, and the descriptors are
    // nobody's yet.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                for at in 0..bytes / size_of::<c_int>() {
                    libc::close(libc::CMSG_DATA(header).cast::<c_int>().add(at).read_unaligned());
                }
                (*message).msg_flags |= libc::MSG_CTRUNC;
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
        (*message).msg_controllen = 0;
    }
}
