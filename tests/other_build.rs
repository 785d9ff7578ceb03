//! A program that is not the one that starts it as a worker.

fn main() {
    // Links the runtime, so that the process is taken over like any worker.
    println!("initialized: {}", mobula::is_initialized());
}
