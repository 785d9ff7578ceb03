//! Functions that return streams of something else than owned, encodable items.

#[mobula::remote(streaming)]
fn number() -> u64 {
    1
}

#[mobula::remote(streaming)]
fn nothing() {}

#[mobula::remote(streaming)]
fn text() -> String {
    String::new()
}

#[mobula::remote(streaming)]
fn result_of_a_stream() -> Result<Vec<u64>, String> {
    Ok(Vec::new())
}

#[mobula::remote(streaming)]
fn borrowed() -> impl Iterator<Item = &'static str> {
    ["a"].into_iter()
}

struct Opaque;

#[mobula::remote(streaming)]
fn opaque() -> impl Iterator<Item = Opaque> {
    std::iter::once(Opaque)
}

#[mobula::remote(streaming, num_returns = 2)]
fn two() -> Vec<u64> {
    vec![1, 2]
}

#[mobula::remote(max_in_flight = 3)]
fn no_stream() -> Vec<u64> {
    Vec::new()
}

fn main() {}
