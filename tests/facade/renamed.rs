//! Remote functions and actors in a crate that knows Mobula by another name, or through a facade.
//!
//! If this fails, a program that renames its dependency, or has Mobula from another crate, does not compile, or its
//! functions are not found in the workers.

use mb::{ActorHandle, ObjectRef};

#[mb::remote(crate = "mb")]
fn square(x: i64) -> i64 {
    x * x
}

#[mb::remote(crate = mb, num_returns = 2)]
fn divide(a: i64, b: i64) -> Result<(i64, i64), String> {
    if b == 0 { Err("by zero".to_owned()) } else { Ok((a / b, a % b)) }
}

#[mb::remote(max_retries = unlimited, crate = "::mb")]
fn numbers(count: u8) -> Vec<u8> {
    (0..count).collect()
}

struct Counter(i64);

#[facade::remote(crate = "facade", max_restarts = unlimited)]
impl Counter {
    fn new(start: i64) -> Self {
        Counter(start)
    }

    #[remote(num_returns = 2)]
    fn add(&mut self, by: i64) -> (i64, i64) {
        let before = self.0;
        self.0 += by;
        (before, self.0)
    }
}

mod inner {
    use mobula_facade as facade;

    #[facade::parts::mobula::remote(crate = "facade::parts::mobula")]
    pub(super) fn by_relative_path(x: i64) -> i64 {
        x + 1
    }

    #[mb::remote(crate = "super::facade")]
    pub(super) fn by_super(x: i64) -> i64 {
        x + 2
    }
}

use mobula_facade::parts::mobula as facade;

mobula_facade::remote_function! {
    fn by_macro(x: i64) -> i64 {
        x + 3
    }
}

#[test]
fn functions_and_actors_work_under_any_name() {
    let _session = mb::init().unwrap();
    let nine: ObjectRef<i64> = square::remote(3);
    assert_eq!(square::remote(nine).get().unwrap(), 81);
    let (quotient, remainder) = divide::remote(7, 2);
    assert_eq!((quotient.get().unwrap(), remainder.get().unwrap()), (3, 1));
    assert_eq!(mb::get(numbers::num_returns(3).remote(3)).unwrap(), [0, 1, 2]);
    let counter: ActorHandle<Counter> = Counter::remote(1);
    let (before, after) = counter.add(2);
    assert_eq!((before.get().unwrap(), after.get().unwrap()), (1, 3));
    assert_eq!(inner::by_relative_path::remote(0).get().unwrap(), 1);
    assert_eq!(inner::by_super::remote(0).get().unwrap(), 2);
    assert_eq!(by_macro::remote(0).get().unwrap(), 3);
}
