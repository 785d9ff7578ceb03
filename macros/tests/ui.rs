//! What `#[mobula::remote]` accepts, and what it says about what it does not.
//!
//! If this fails, a user's correct function does not compile, or compiles with warnings that are not theirs, or an
//! incorrect one is answered with an error about code that they never wrote.

#[test]
fn accepted() {
    trybuild::TestCases::new().pass("tests/ui/pass/*.rs");
}

#[test]
fn refused() {
    trybuild::TestCases::new().compile_fail("tests/ui/fail/*.rs");
}
