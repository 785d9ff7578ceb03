//! What `#[mobula::remote]` accepts, and what it says about what it does not.
//!
//! If this fails, a user's correct function does not compile, or compiles with warnings that are not theirs, or an
//! incorrect one is answered with an error about code that they never wrote.

// One set for both, so that everything below is built once.
#[test]
fn accepted_and_refused() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}
