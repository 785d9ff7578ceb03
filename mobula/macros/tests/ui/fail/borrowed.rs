//! Arguments and results that borrow from their process.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

#[mobula::remote]
fn text(x: &str) -> usize {
    x.len()
}

#[mobula::remote]
fn slice(x: &[u8], y: &mut Vec<u8>, z: &Path) -> usize {
    x.len() + y.len() + z.as_os_str().len()
}

#[mobula::remote]
fn nested(x: Option<&'static str>, y: (u8, Vec<[&'static u8; 2]>), z: Cow<'_, str>) -> PathBuf {
    let _ = (x, y);
    PathBuf::from(z.as_ref())
}

#[mobula::remote]
fn returned() -> &'static str {
    "text"
}

#[mobula::remote]
fn returned_inside() -> Result<Vec<&'static str>, String> {
    Ok(vec![])
}

// Not these: an error stays where it is, and a function pointer passes nothing on yet.
mod fine {
    #[mobula::remote]
    fn owned(x: std::borrow::Cow<'static, str>) -> Result<(), &'static str> {
        if x.is_empty() { Err("empty") } else { Ok(()) }
    }
}

fn main() {}
