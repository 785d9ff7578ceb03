//! Blocks and methods that cannot make an actor.

struct WithoutNew;

#[mobula::remote]
impl WithoutNew {
    fn method(&self) {}
}

struct NewWithSelf;

#[mobula::remote]
impl NewWithSelf {
    fn new(&self) -> Self {
        NewWithSelf
    }
}

struct NewWithoutSelf;

#[mobula::remote]
impl NewWithoutSelf {
    fn new() {}
}

struct ConditionalNew;

#[mobula::remote]
impl ConditionalNew {
    #[cfg(all())]
    fn new() -> Self {
        ConditionalNew
    }
}

struct Generic<T>(T);

#[mobula::remote]
impl<T: Copy> Generic<T> {
    fn new(value: T) -> Self {
        Generic(value)
    }
}

struct Pair<A, B>(A, B);

#[mobula::remote(instances((u8, u16), u8))]
impl<A, B> Pair<A, B> {
    fn new(a: A, b: B) -> Self {
        Pair(a, b)
    }
}

struct Plain;

#[mobula::remote(instances(u8))]
impl Plain {
    fn new() -> Self {
        Plain
    }
}

struct Exported<T>(T);

#[mobula::remote(instances(u8, u16), export = "Exported")]
impl<T> Exported<T> {
    fn new(value: T) -> Self {
        Exported(value)
    }
}

struct Borrowing<'a>(&'a str);

#[mobula::remote(instances(u8))]
impl<'a> Borrowing<'a> {
    fn new() -> Self {
        Borrowing("")
    }
}

trait Shape {
    fn area(&self) -> f64;
}

#[mobula::remote]
impl Shape for Plain {
    fn area(&self) -> f64 {
        0.0
    }
}

struct Methods;

#[mobula::remote]
impl Methods {
    async fn new<T>(x: &str, y: T) -> Self {
        let _ = (x, y);
        Methods
    }

    fn by_value(self) {}

    fn boxed(self: Box<Self>) {}

    fn borrows(&self, x: &str) -> &str {
        let _ = x;
        "text"
    }

    fn generic<T>(&self, x: T) {
        let _ = x;
    }

    unsafe fn careless(&self) {}

    fn remote(&self) {}

    fn options() {}
}

fn main() {}
