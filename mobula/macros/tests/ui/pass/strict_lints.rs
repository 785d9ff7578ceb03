//! A public interface under the strictest lints: nothing that the attribute adds may need an exception of the user's.

#![deny(warnings)]
// Forbidden even to the generated code, so that a user may forbid them too.
#![forbid(missing_docs, unreachable_pub, unnameable_types, dead_code, non_camel_case_types, unsafe_code)]
#![deny(
    missing_debug_implementations,
    unused_qualifications,
    unused_results,
    unused_lifetimes,
    single_use_lifetimes,
    trivial_casts,
    trivial_numeric_casts,
    let_underscore_drop,
    redundant_lifetimes,
    non_local_definitions,
    future_incompatible,
    nonstandard_style,
    rust_2018_idioms
)]

/// Public to the last item.
pub mod shapes {
    use mobula::ObjectRef;

    /// Adds.
    #[mobula::remote]
    pub fn add(a: i64, b: i64) -> i64 {
        a + b
    }

    /// Lists.
    #[mobula::remote(max_retries = 2)]
    pub fn list(count: usize) -> Vec<u8> {
        vec![0; count]
    }

    /// Splits.
    #[mobula::remote(num_returns = 2)]
    pub fn split(a: i64) -> Result<(i64, i64), String> {
        Ok((a, a))
    }

    /// Never called.
    #[mobula::remote]
    #[deprecated(note = "use `add`")]
    pub fn old(_a: i64) {}

    #[mobula::remote]
    fn never_called(_a: Private) -> Private {
        Private
    }

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Private;

    /// A type that others should not use any more.
    #[deprecated]
    pub type Outdated = u8;

    /// Takes one all the same.
    #[mobula::remote]
    #[allow(deprecated)]
    pub fn outdated(_outdated: Outdated) {}

    /// Keeps a value.
    #[derive(Debug)]
    pub struct Keeper {
        value: i64,
    }

    #[mobula::remote]
    impl Keeper {
        /// Starts.
        pub fn new(value: i64) -> Self {
            Self { value }
        }

        /// The value.
        pub fn value(&self) -> i64 {
            self.value
        }

        /// The value, as it was called.
        #[deprecated(note = "use `value`")]
        pub fn old(&self) -> i64 {
            self.value
        }

        fn private(&self, _private: Private) -> Private {
            Private
        }
    }

    /// Without methods.
    #[derive(Debug)]
    pub struct Empty;

    #[mobula::remote]
    impl Empty {
        /// Starts.
        pub fn new() -> Result<Self, String> {
            Ok(Empty)
        }
    }

    struct Hidden;

    #[mobula::remote]
    impl Hidden {
        fn new(_private: Private) -> Self {
            Hidden
        }

        fn visible(&self, private: Private) -> Private {
            private
        }
    }

    /// Uses what is private.
    pub fn remotely() -> Vec<ObjectRef<i64>> {
        drop((Keeper::remote(1).private(Private), never_called::remote(Private)));
        drop(Hidden::remote(Private).visible(Private));
        vec![add::remote(1, 2), Keeper::remote(3).value()]
    }
}

fn main() {
    // Compiled, but not run: there is no store here.
    let _: fn() -> _ = shapes::remotely;
    assert_eq!(shapes::add(1, 2), 3);
}
