//! An argument whose type nothing says. It could be a value or a reference to one, so the call cannot say it.

#[mobula::remote]
fn square(x: i64) -> i64 {
    x * x
}

fn remotely(text: &str) -> Result<(), std::num::ParseIntError> {
    let _ = square::remote(text.parse()?);
    // This says it.
    let _ = square::remote(text.parse::<i64>()?);
    Ok(())
}

fn main() {
    let _ = remotely("3");
}
