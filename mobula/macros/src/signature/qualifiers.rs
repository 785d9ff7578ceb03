//! Refuses qualifiers of functions that cannot be registered once and called from another process: `unsafe`, generics,
//! and others.

use syn::Safety;

use crate::Errors;

/// Refuses each qualifier that prevents a function from being registered once and called from another process.
pub(crate) fn check_qualifiers(signature: &syn::Signature, what: &str, errors: &mut Errors) {
    if let Some(token) = &signature.asyncness {
        errors.push(
            token,
            format!("{what} is not `async`: a remote call returns at once as it is, and the body may block"),
        );
    }
    check_other_qualifiers(signature, what, errors);
}

/// Refuses these qualifiers for a method of an actor, which may be `async`.
pub(crate) fn check_method_qualifiers(signature: &syn::Signature, errors: &mut Errors) {
    if let Some(token) = &signature.asyncness
        && !cfg!(feature = "tokio")
    {
        errors.push(token, "`async` methods run on tokio: add the feature `tokio` of the crate `mobula`");
    }
    check_other_qualifiers(signature, "an actor's method", errors);
}

fn check_other_qualifiers(signature: &syn::Signature, what: &str, errors: &mut Errors) {
    if let Safety::Unsafe(token) = &signature.safety {
        errors.push(
            token,
            format!(
                "{what} is not `unsafe`: nobody could uphold its conditions from another process; \
                 wrap the unsafe call in a safe function"
            ),
        );
    }
    if let Some(abi) = &signature.abi {
        errors.push(abi, format!("{what} has Rust's own calling convention: leave `extern` out"));
    }
    if !signature.generics.params.is_empty() {
        errors.push(
            &signature.generics.params,
            format!(
                "{what} has no generic parameters: it is registered once, by its name; \
                 write one for each type, and let them call a generic one"
            ),
        );
    }
    if let Some(clause) = &signature.generics.where_clause {
        errors.push(
            clause,
            format!("{what} has no `where` clause: it is registered once, for one set of types"),
        );
    }
    if let Some(variadic) = &signature.variadic {
        errors.push(variadic, format!("{what} is not variadic: take a `Vec`"));
    }
}
