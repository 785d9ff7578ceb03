//! The attribute on what is neither a function nor an `impl` block of a type.

#[mobula::remote]
struct Struct;

#[mobula::remote]
enum Enum {
    One,
}

#[mobula::remote]
trait Trait {
    fn method(&self);
}

#[mobula::remote]
mod module {}

#[mobula::remote]
const CONSTANT: u8 = 1;

#[mobula::remote]
impl Trait for Struct {
    fn method(&self) {}
}

impl Struct {
    #[mobula::remote]
    fn method(&self) {}
}

fn main() {
    // The items themselves are still there: no error here.
    let _ = (Enum::One, CONSTANT);
    Struct.method();
}
