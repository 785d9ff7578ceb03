//! Everywhere a function or an actor can stand: modules, bodies of functions, macros, behind `#[cfg]`, any visibility.

#![deny(warnings)]

use mobula::{ActorHandle, ObjectRef};

mod outer {
    pub mod inner {
        #[mobula::remote]
        pub(crate) fn within_crate(x: i64) -> i64 {
            x
        }

        #[mobula::remote]
        pub(super) fn within_outer(x: i64) -> i64 {
            x
        }

        #[mobula::remote]
        pub(in crate::outer) fn within_path(x: super::Distance) -> super::Distance {
            x
        }

        pub struct Gauge;

        #[mobula::remote]
        impl Gauge {
            pub fn new() -> Self {
                Gauge
            }
            pub(super) fn within_outer(&self) -> i64 {
                1
            }
            pub(crate) fn within_crate(&self) -> i64 {
                2
            }
        }
    }

    pub type Distance = u32;

    pub fn remotely() {
        let _ = inner::within_outer::remote(1);
        let _ = inner::within_path::remote(1);
        let _ = inner::Gauge::remote().within_outer();
    }

    pub fn locally() -> i64 {
        inner::within_outer(1) + i64::from(inner::within_path(1)) + inner::Gauge::new().within_outer()
    }
}

use outer::inner::{Gauge, within_crate};

// One `use` brings both the function and what calls it remotely.
mod elsewhere {
    use super::outer::inner::within_crate;

    pub fn remotely() {
        let _ = within_crate::remote(within_crate(1));
    }
}

// An actor's block may stand in another module than its type.
struct Distant {
    value: i64,
}

mod distant {
    #[mobula::remote]
    impl super::Distant {
        pub(super) fn new(value: i64) -> Self {
            Self { value }
        }
        pub(super) fn value(&self) -> i64 {
            self.value
        }
    }
}

#[cfg(any())]
#[mobula::remote]
fn absent_before(x: Missing) {}

#[mobula::remote]
#[cfg(any())]
fn absent_after(x: Missing) {}

#[mobula::remote]
#[cfg(all())]
fn present(x: i64) -> i64 {
    x
}

struct Absent;

#[mobula::remote]
#[cfg(any())]
impl Absent {
    fn new() -> Missing {}
}

macro_rules! functions {
    ($($name:ident: $ty:ty),*) => {$(
        #[mobula::remote]
        fn $name(x: $ty, list: Vec<$ty>) -> Result<$ty, String> {
            let _ = list;
            Ok(x)
        }
    )*};
}

functions!(of_bytes: u8, of_lists: Vec<u8>);

macro_rules! actor {
    ($name:ident, $state:ty) => {
        struct $name($state);

        #[mobula::remote]
        impl $name {
            fn new(state: $state) -> Self {
                $name(state)
            }
            fn state(&self) -> $state {
                self.0.clone()
            }
        }
    };
}

actor!(Keeper, Vec<u8>);

fn remotely() {
    outer::remotely();
    elsewhere::remotely();
    let _ = within_crate::remote(1);
    let _ = Gauge::remote().within_crate();
    let distant: ActorHandle<Distant> = Distant::remote(1);
    let _: ObjectRef<i64> = distant.value();
    let _ = present::remote(1);
    let _: ObjectRef<u8> = of_bytes::remote(1, vec![2]);
    let _: ObjectRef<Vec<u8>> = of_lists::remote(vec![1], vec![]);
    let _: ObjectRef<Vec<u8>> = Keeper::remote(vec![1]).state();
}

fn main() {
    // Compiled, but not run: there is no store here.
    let _: fn() = remotely;

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Local(i64);

    #[mobula::remote]
    fn inside(x: Local) -> Local {
        x
    }

    struct Actor(Local);

    #[mobula::remote]
    impl Actor {
        fn new(local: Local) -> Self {
            Self(local)
        }
        fn get(&self, plus: Local) -> Local {
            Local(self.0.0 + plus.0)
        }
    }

    let _: fn() = || {
        let _: ObjectRef<Local> = inside::remote(Local(1));
        let _: ObjectRef<Local> = Actor::remote(Local(1)).get(Local(2));
    };

    assert_eq!(outer::locally() + within_crate(1) + Gauge::new().within_crate(), 6);
    assert_eq!(Distant::new(1).value(), 1);
    assert_eq!(inside(Local(1)).0, Actor::new(Local(1)).get(Local(0)).0);
    assert_eq!(of_bytes(1, vec![]).unwrap(), 1);
    assert_eq!(of_lists(vec![], vec![]).unwrap(), Keeper::new(vec![]).state());
    assert_eq!(present(1), 1);
    let _ = Absent;
}
