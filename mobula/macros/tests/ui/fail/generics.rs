//! Generic parameters, in all their forms.

#[mobula::remote]
fn types<T>(x: T) -> T {
    x
}

#[mobula::remote]
fn constants<const N: usize>(x: [u8; N]) -> usize {
    x.len()
}

#[mobula::remote]
fn lifetimes<'a>(x: std::borrow::Cow<'a, str>) -> usize {
    x.len()
}

#[mobula::remote]
fn clause<T>(x: T) -> T
where
    T: Copy,
{
    x
}

#[mobula::remote]
fn arguments(x: impl Copy, y: Vec<impl Copy>) {
    let _ = (x, y);
}

#[mobula::remote]
fn result() -> impl Copy {
    1
}

fn main() {}
