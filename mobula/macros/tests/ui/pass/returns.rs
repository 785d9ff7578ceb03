//! Every kind of return type, and the options: results, tuples and lists as several objects.

#![deny(warnings)]

use std::fmt;

use mobula::{ObjectRef, TaskOptions};

#[derive(Debug)]
struct Refused;

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("refused")
    }
}

impl std::error::Error for Refused {}

type Boxed<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

mod own {
    pub(crate) type Result<T> = std::result::Result<T, super::Refused>;
}

#[mobula::remote]
fn unit() {}

#[mobula::remote]
fn explicit_unit() -> () {}

#[mobula::remote]
fn result(x: i64) -> Result<i64, Refused> {
    if x < 0 { Err(Refused) } else { Ok(x) }
}

#[mobula::remote]
fn boxed(x: i64) -> std::result::Result<i64, Box<dyn std::error::Error + Send + Sync>> {
    Ok(x)
}

#[mobula::remote]
fn alias(x: i64) -> own::Result<()> {
    if x < 0 { Err(Refused) } else { Ok(()) }
}

#[mobula::remote(num_returns = 2)]
fn divide(a: i64, b: i64) -> (i64, Option<i64>) {
    (a / b, Some(a % b))
}

#[mobula::remote(num_returns = 3)]
fn three() -> Result<(u8, String, Vec<f64>), Refused> {
    Ok((1, "two".to_owned(), vec![3.0]))
}

// A tuple stays one object, unless it is asked for otherwise.
#[mobula::remote]
fn pair() -> (u8, u8) {
    (1, 2)
}

#[mobula::remote(num_returns = 1)]
fn one() -> (u8, u8) {
    (1, 2)
}

#[mobula::remote]
fn list(count: usize) -> Vec<u16> {
    vec![0; count]
}

#[mobula::remote]
fn fallible_list(count: usize) -> Result<Vec<u16>, Refused> {
    if count == 0 { Err(Refused) } else { Ok(vec![0; count]) }
}

#[mobula::remote(max_retries = 3, name = "tests.patient")]
fn patient(x: i64) -> i64 {
    x
}

#[mobula::remote()]
fn empty_options() -> i64 {
    1
}

fn remotely() {
    let _: ObjectRef<()> = unit::remote();
    let _: ObjectRef<()> = explicit_unit::remote();
    let _: ObjectRef<i64> = result::remote(1);
    let _: ObjectRef<i64> = boxed::remote(1);
    let _: ObjectRef<()> = alias::remote(1);
    let (quotient, remainder) = divide::remote(7, 2);
    let _: (ObjectRef<i64>, ObjectRef<Option<i64>>) = divide::remote(quotient, 2);
    let _: ObjectRef<Option<i64>> = remainder;
    let _: (ObjectRef<u8>, ObjectRef<String>, ObjectRef<Vec<f64>>) = three::remote();
    let _: ObjectRef<(u8, u8)> = pair::remote();
    let _: ObjectRef<(u8, u8)> = one::remote();
    let _: ObjectRef<Vec<u16>> = list::remote(3);
    let _: Vec<ObjectRef<u16>> = list::num_returns(3).remote(3);
    let _: Vec<ObjectRef<u16>> = list::options(TaskOptions::new()).num_returns(3).remote(3);
    let _: Vec<ObjectRef<u16>> = fallible_list::num_returns(3).remote(3);
    let _: ObjectRef<i64> = patient::remote(1);
    let _: ObjectRef<i64> = patient::options(TaskOptions::new().max_retries(1)).remote(1);
    let _: ObjectRef<i64> = empty_options::options(TaskOptions::new()).remote();
}

fn main() {
    // Compiled, but not run: there is no store here.
    let _: fn() = remotely;

    unit();
    explicit_unit();
    assert!(result(-1).is_err());
    let boxed: Boxed<i64> = boxed(1);
    assert_eq!(boxed.unwrap(), 1);
    assert!(alias(1).is_ok());
    assert_eq!(divide(7, 2), (3, Some(1)));
    assert_eq!(three().unwrap().0, 1);
    assert_eq!(pair(), one());
    assert_eq!(list(2), fallible_list(2).unwrap());
    assert_eq!(patient(1), empty_options());
}
