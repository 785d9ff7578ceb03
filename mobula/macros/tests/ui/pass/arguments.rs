//! Every kind of argument: literals that need inference, references, patterns, attributes, none and many.

#![deny(warnings)]

use std::collections::HashMap;

use mobula::ObjectRef;
use serde::{Deserialize, Serialize};

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

#[mobula::remote]
fn byte(x: u8) -> u8 {
    x
}

#[mobula::remote]
fn half(x: f64) -> f32 {
    (x / 2.0) as f32
}

#[mobula::remote]
fn maybe(x: Option<i64>) -> Option<i64> {
    x
}

#[mobula::remote]
fn nested(x: Vec<(u8, Option<f32>)>, by_name: HashMap<String, Vec<u16>>) -> usize {
    x.len() + by_name.len()
}

#[mobula::remote]
fn text(x: String) -> String {
    x
}

#[derive(Serialize, Deserialize)]
struct Point {
    x: i64,
    y: i64,
}

#[mobula::remote]
fn point(point: Point) -> Point {
    point
}

// The object itself is not wanted here, only the reference to it.
#[mobula::remote]
fn holder(reference: ObjectRef<i64>, references: Vec<ObjectRef<i64>>) -> ObjectRef<i64> {
    drop(references);
    reference
}

#[mobula::remote]
fn none() {}

#[mobula::remote]
fn patterns(
    mut x: i64,
    _unused: i64,
    _: i64,
    (a, b): (i64, i64),
    Point { x: px, y: py }: Point,
    [first, ..]: [i64; 3],
    ref y: i64,
    whole @ (_, _): (u8, u8),
    _x: i64,
    _1: u8,
) -> i64 {
    x += a + b + px + py + first + *y + i64::from(whole.0);
    x
}

#[mobula::remote]
fn attributes(
    /// What to add.
    #[allow(unused_variables)]
    a: i64,
    /// What to add it to,
    /// in two lines.
    b: i64,
    #[cfg(any())] absent: Missing,
    #[cfg(all())] present: i64,
) -> i64 {
    b + present
}

#[mobula::remote]
fn many(
    a: u8,
    b: u8,
    c: u8,
    d: u8,
    e: u8,
    f: u8,
    g: u8,
    h: u8,
    i: u8,
    j: u8,
    k: u8,
    l: u8,
    m: u8,
    n: u8,
    o: u8,
    p: u8,
    q: u8,
    r: u8,
    s: u8,
    t: u8,
) -> u8 {
    a + b + c + d + e + f + g + h + i + j + k + l + m + n + o + p + q + r + s + t
}

// Names that the generated code could confuse with its own.
#[mobula::remote]
fn call(call: i64, arguments: i64, options: i64, count: i64, create: i64) -> i64 {
    call + arguments + options + count + create
}

#[mobula::remote]
fn r#type(r#fn: i64) -> i64 {
    r#fn
}

#[mobula::remote]
fn owned(text: std::borrow::Cow<'static, str>, array: [u8; 4], unit: ()) -> std::borrow::Cow<'static, str> {
    let _ = (array, unit);
    text
}

#[mobula::remote]
const fn constant(x: i64) -> i64 {
    x
}

const CPUS: f64 = 0.5;
const SHARE: u64 = 1 << 20;

#[mobula::remote(num_cpus = CPUS, memory = 4 * SHARE, resources = [("disk", 0.5)], max_retries = 1)]
const fn demanding(x: i64) -> i64 {
    x
}

#[mobula::remote(num_cpus = 2)]
fn whole() {}

fn remotely() {
    let nine: ObjectRef<i64> = square::remote(3);
    let _: ObjectRef<i64> = square::remote(&nine);
    let _: ObjectRef<i64> = square::remote(nine.clone());
    let _ = square::remote(-3);
    let _: ObjectRef<u8> = byte::remote(200);
    let _: ObjectRef<f32> = half::remote(2.5);
    let _: ObjectRef<Option<i64>> = maybe::remote(Some(3));
    let _ = maybe::remote(None);
    let _ = nested::remote(vec![(1, Some(2.5)), (2, None)], HashMap::from([("a".to_owned(), vec![1, 2])]));
    let _ = nested::remote(vec![], HashMap::new());
    let _ = text::remote(String::from("a"));
    let _ = point::remote(Point { x: 1, y: 2 });
    let _: ObjectRef<ObjectRef<i64>> = holder::remote(nine.clone(), vec![nine.clone()]);
    let _: ObjectRef<()> = none::remote();
    let _ = patterns::remote(1, 2, 3, (4, 5), Point { x: 6, y: 7 }, [8, 9, 10], 11, (12, 13), 14, 15);
    let _ = attributes::remote(1, 2, 3);
    let _ = many::remote(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1);
    let _ = call::remote(1, 2, 3, 4, 5);
    let _ = r#type::remote(1);
    let _ = owned::remote("text".into_owned_cow(), [1, 2, 3, 4], ());
    let _ = constant::remote(1);
    let _: ObjectRef<i64> = demanding::remote(1);
    let _: ObjectRef<i64> = demanding::options(mobula::TaskOptions::new().num_cpus(0)).remote(1);
    let owned_names = mobula::TaskOptions::new().resources(vec![("a".to_owned(), 1.5_f32)]);
    let _: ObjectRef<()> = whole::options(owned_names).remote();
}

trait IntoOwnedCow {
    fn into_owned_cow(self) -> std::borrow::Cow<'static, str>;
}

impl IntoOwnedCow for &'static str {
    fn into_owned_cow(self) -> std::borrow::Cow<'static, str> {
        self.into()
    }
}

fn main() {
    // Compiled, but not run: there is no store here.
    let _: fn() = remotely;

    assert_eq!(square(3), 9);
    assert_eq!(byte(200), 200);
    assert_eq!(half(5.0), 2.5);
    assert_eq!(maybe(None), None);
    assert_eq!(nested(vec![], HashMap::new()), 0);
    assert_eq!(text(String::new()), "");
    assert_eq!(point(Point { x: 1, y: 2 }).y, 2);
    none();
    assert_eq!(patterns(1, 2, 3, (4, 5), Point { x: 6, y: 7 }, [8, 9, 10], 11, (12, 13), 14, 15), 54);
    assert_eq!(attributes(1, 2, 3), 5);
    assert_eq!(many(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1), 20);
    assert_eq!(call(1, 2, 3, 4, 5), 15);
    assert_eq!(r#type(1), 1);
    assert_eq!(owned("a".into(), [0; 4], ()), "a");
    const ONE: i64 = constant(1);
    assert_eq!(ONE, 1);
    assert_eq!(demanding(1), 1);
    whole();
    let _ = holder;
}
