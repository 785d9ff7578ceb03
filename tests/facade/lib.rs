//! A facade, as a company or a framework has one: its users depend on it alone, and it passes Mobula on.

/// Everything else of it.
pub mod parts {
    pub use mb as mobula;
}

/// Makes a function remote for users who have this crate alone.
#[macro_export]
macro_rules! remote_function {
    ($($function:tt)*) => {
        #[$crate::parts::mobula::remote(crate = $crate::parts::mobula)]
        $($function)*
    };
}
