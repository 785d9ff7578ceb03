//! Functions that another process cannot call.

#[mobula::remote]
async fn asynchronous() {}

#[mobula::remote]
unsafe fn careless() {}

#[mobula::remote]
extern "C" fn foreign() {}

#[mobula::remote]
pub(crate) async unsafe extern "C" fn everything<T>(x: &T) {
    let _ = x;
}

#[mobula::remote]
fn endless() -> ! {
    loop {}
}

fn main() {}
