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

struct Applied<T>(T);

#[mobula::remote]
impl Applied<u8> {
    fn new(value: u8) -> Self {
        Applied(value)
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
