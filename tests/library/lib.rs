//! A library with mobula in it, as an interpreter's extension is one: see `tests/host.rs`.

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

/// Starts a session, and says how that went.
// SAFETY: nobody else has a function of this name.
#[unsafe(no_mangle)]
pub extern "C" fn mobula_test_main() {
    let said = mobula::Builder::new()
        .workers(1)
        .capacity_bytes(64 << 20)
        .init()
        .and_then(|_session| square::remote(3).get_timeout(std::time::Duration::from_secs(60)));
    match said {
        Ok(nine) => println!("square {nine}"),
        Err(error) => println!("{error}"),
    }
}

/// Becomes a worker, if it is to be one.
// SAFETY: nobody else has a function of this name.
#[unsafe(no_mangle)]
pub extern "C" fn mobula_test_become_worker() {
    mobula::become_worker();
}
