//! Classes with parameters, with constants, and with trait objects.

#![deny(warnings)]

use std::collections::VecDeque;
use std::fmt::Display;

use mobula::{ActorHandle, ActorOptions, ObjectRef};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A block for one set of arguments.
struct Applied<T, const N: usize>([T; N]);

#[mobula::remote]
impl Applied<u8, 4> {
    fn new(value: u8) -> Self {
        Applied([value; 4])
    }

    fn all(&self) -> [u8; 4] {
        self.0
    }
}

/// A block for several.
struct Stack<T> {
    values: Vec<T>,
}

#[mobula::remote(instances(i32, String, (u8, u8), VecDeque<Option<i32>>), max_restarts = 1)]
impl<T: Clone + Send + Serialize + DeserializeOwned + 'static> Stack<T> {
    const LARGEST: usize = 8;

    fn new() -> Self {
        Self { values: Vec::new() }
    }

    fn push(&mut self, value: T) -> usize {
        self.values.push(value);
        self.values.truncate(Self::LARGEST);
        self.values.len()
    }

    fn pop(&mut self) -> Option<T> {
        self.values.pop()
    }

    /// A handle to one of the classes. `ActorHandle<Self>` would need to know that each `Stack<T>` is an actor.
    fn count_in(&self, other: ActorHandle<Stack<i32>>) -> Result<usize, mobula::Error> {
        Ok(other.push(0).get()? + self.values.len())
    }
}

/// Several parameters, of both kinds.
struct Matrix<T, const ROWS: usize, const COLUMNS: usize>([[T; COLUMNS]; ROWS]);

#[mobula::remote(instances((f32, 2, 3), (f64, { 1 + 1 }, 2)), max_concurrency = 2)]
impl<T, const ROWS: usize, const COLUMNS: usize> Matrix<T, ROWS, COLUMNS>
where
    T: Copy + Display + Send + Sync + Serialize + DeserializeOwned + 'static,
{
    fn new(value: T) -> Self {
        Self([[value; COLUMNS]; ROWS])
    }

    fn len(&self) -> usize {
        ROWS * COLUMNS
    }

    async fn show(&self, row: usize) -> String {
        self.0[row].map(|value| value.to_string()).join(" ")
    }
}

trait Shape: Send {
    fn area(&self) -> f64;
}

struct Square(f64);

impl Shape for Square {
    fn area(&self) -> f64 {
        self.0 * self.0
    }
}

/// A trait object behind a class.
struct Drawing {
    shape: Box<dyn Shape>,
}

#[mobula::remote]
impl Drawing {
    const UNIT: f64 = 1.0;

    fn new(side: f64) -> Self {
        Self { shape: Box::new(Square(side * Self::UNIT)) }
    }

    fn area(&self) -> f64 {
        self.shape.area()
    }
}

/// A trait that handles implement, as a program writes it itself.
trait RemoteShape {
    fn area(&self) -> ObjectRef<f64>;
}

impl RemoteShape for ActorHandle<Drawing> {
    fn area(&self) -> ObjectRef<f64> {
        let methods: &<Drawing as mobula::Actor>::Methods = self;
        methods.area()
    }
}

fn areas(shapes: &[Box<dyn RemoteShape>]) -> mobula::Result<Vec<f64>> {
    mobula::get(shapes.iter().map(|shape| shape.area()))
}

fn main() -> mobula::Result<()> {
    let _mobula = mobula::init()?;
    assert_eq!(Applied::<u8, 4>::remote(7).all().get()?, [7; 4]);

    let numbers: ActorHandle<Stack<i32>> = Stack::<i32>::remote();
    let more = Stack::<i32>::options(ActorOptions::new().name("more")).remote();
    let words = Stack::<String>::remote();
    let pairs = Stack::<(u8, u8)>::remote();
    let queues = Stack::<VecDeque<Option<i32>>>::remote();
    numbers.push(1);
    numbers.push(2);
    assert_eq!(numbers.count_in(more.clone()).get()?, 3);
    assert_eq!(mobula::get_actor::<Stack<i32>>("more")?.pop().get()?, Some(0));
    let error = mobula::get_actor::<Stack<String>>("more").unwrap_err().to_string();
    assert!(error.contains("Stack<i32>") && error.contains("Stack<String>"), "{error}");
    words.push("word".to_owned());
    assert_eq!(words.pop().get()?.as_deref(), Some("word"));
    pairs.push((1, 2));
    assert_eq!(pairs.pop().get()?, Some((1, 2)));
    assert_eq!(queues.push(VecDeque::from([None, Some(1)])).get()?, 1);
    for number in 0..10 {
        assert!(numbers.push(number).get()? <= Stack::<i32>::LARGEST);
    }

    let flat = Matrix::<f32, 2, 3>::remote(0.5);
    assert_eq!((flat.len().get()?, flat.show(1).get()?.as_str()), (6, "0.5 0.5 0.5"));
    let square = Matrix::<f64, 2, 2>::remote(1.0);
    assert_eq!(square.len().get()?, 4);

    assert_eq!(areas(&[Box::new(Drawing::remote(3.0))])?, [9.0]);
    Ok(())
}
