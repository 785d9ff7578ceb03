//! A program that is not the one that starts it as a worker.

struct Counter;

#[mobula::remote]
impl Counter {
    fn new() -> Self {
        Self
    }
}

fn main() {
    if let Ok(name) = std::env::var("MOBULA_TEST_FIND") {
        let _mobula = mobula::init().unwrap();
        return match mobula::get_actor::<Counter>(&name) {
            Ok(_) => println!("found"),
            Err(error) => println!("{error}"),
        };
    }
    if let Ok(name) = std::env::var("MOBULA_TEST_SHARE") {
        let _mobula = mobula::init().unwrap();
        let shared = mobula::util::shared(&name, || Ok("made by another build".to_owned())).unwrap();
        return println!("{}", shared.get().unwrap());
    }
    // Links the runtime, so that the process is taken over like any worker.
    println!("initialized: {}", mobula::is_initialized());
}
