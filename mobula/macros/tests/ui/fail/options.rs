//! Options that do not exist, or do not fit the function.

#[mobula::remote(retries = 3)]
fn unknown() {}

#[mobula::remote(num_returns = 2, num_returns = 2)]
fn twice() -> (u8, u8) {
    (1, 2)
}

#[mobula::remote(num_returns = 2)]
fn three() -> (u8, u8, u8) {
    (1, 2, 3)
}

#[mobula::remote(num_returns = 3)]
fn three_inside() -> Result<(u8, u8), String> {
    Ok((1, 2))
}

#[mobula::remote(num_returns = 2)]
fn list() -> Vec<u8> {
    vec![1, 2]
}

#[mobula::remote(num_returns = 2)]
fn nothing() {}

#[mobula::remote(num_returns = 0)]
fn zero() {}

#[mobula::remote(num_returns = 9)]
fn nine() {}

#[mobula::remote(num_returns = "2")]
fn quoted() {}

#[mobula::remote(num_returns)]
fn bare() {}

#[mobula::remote(max_retries = -1)]
fn negative() {}

#[mobula::remote(max_retries = forever)]
fn forever() {}

#[mobula::remote(max_calls = 0)]
fn never() {}

#[mobula::remote(num_cpus = -1)]
fn owes() {}

#[mobula::remote(num_cpus = "2")]
fn quoted_amount() {}

#[mobula::remote(memory = "1 GiB")]
fn quoted_bytes() {}

#[mobula::remote(memory = 1.5)]
fn half_bytes() {}

#[mobula::remote(num_cpus = 1, num_cpus = 2)]
fn two_amounts() {}

#[mobula::remote(name = "")]
fn nameless() {}

#[mobula::remote(name = nameless)]
fn unquoted() {}

#[mobula::remote(crate = "not a path")]
fn elsewhere() {}

#[mobula::remote(crate = 3)]
fn numbered() {}

#[mobula::remote(crate = "missing::mobula")]
fn missing() {}

struct Actor;

#[mobula::remote(max_retries = 2)]
impl Actor {
    #[remote(local)]
    fn new() -> Self {
        Actor
    }

    #[remote(local)]
    const ONE: u8 = 1;

    #[remote(max_retries = 2)]
    fn unknown(&self) {}

    #[remote(num_returns = 2)]
    fn three(&self) -> (u8, u8, u8) {
        (1, 2, 3)
    }

    #[remote = "local"]
    fn misspelt(&self) {}

    #[remote(timeout = std::time::Duration::MAX, timeout = std::time::Duration::MAX)]
    fn limited_twice(&self) {}

    #[remote(local, deadline = std::time::Duration::MAX)]
    fn limited_here(&self) {}

    #[remote(retry_exceptions = true)]
    fn retried_without_a_number(&self) {}

    #[remote(retry_if = |_| true, retry_delay = std::time::Duration::MAX)]
    fn retried_if_without_a_number(&self) {}

    #[remote(local, max_task_retries = 2)]
    fn retried_here(&self) {}

    #[remote(local, retry_if = |_| true)]
    fn retried_here_if(&self) {}

    #[remote(max_task_retries = "2")]
    fn retried_text(&self) {}

    #[remote(max_task_retries = 2, retry_exceptions = 1)]
    fn retried_number(&self) {}

    #[remote(max_task_retries = 2, max_task_retries = 2)]
    fn retried_twice(&self) {}
}

struct Restless;

#[mobula::remote(max_restarts = -1, max_task_retries = "2")]
impl Restless {
    fn new() -> Self {
        Restless
    }
}

struct Doubly;

#[mobula::remote(max_restarts = 1, max_restarts = 2)]
impl Doubly {
    fn new() -> Self {
        Doubly
    }
}

fn main() {}
