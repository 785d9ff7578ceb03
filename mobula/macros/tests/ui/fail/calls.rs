//! Remote calls that do not fit the function: the compiler's own errors, at the user's own tokens.

use mobula::ObjectRef;

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

mod private {
    #[mobula::remote]
    fn hidden() {}
}

fn main() {
    let _ = square::remote();
    let _ = square::remote(1, 2);
    let _: ObjectRef<String> = square::remote(1);
    let _ = private::hidden::remote();
}
