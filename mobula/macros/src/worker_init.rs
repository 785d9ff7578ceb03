//! The expansion of `#[worker_init]` on a function.
//!
//! ```text
//! fn set_up() → the function itself
//!               const _ = {
//!                   use ::mobula as __mobula     by the path that the option `crate` gives
//!                   fn __run                     calls it, and hands back the outcome
//!                   static __INIT                the registration: name and `__run`
//!               }
//! ```

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{ItemFn, ReturnType, Signature, Type};

use crate::options::WorkerInitOptions;
use crate::signature;
use crate::{Errors, with_error};

/// Expands the attribute with these options on this function.
pub(crate) fn expand(options: TokenStream, function: &ItemFn) -> TokenStream {
    let mut errors = Errors::default();
    let options = errors.take(WorkerInitOptions::parse(options));
    if !function.sig.inputs.is_empty() {
        errors.push(
            &function.sig.inputs,
            "a function with `#[worker_init]` has no arguments: nobody gives it any",
        );
    }
    signature::check_qualifiers(&function.sig, "a function with `#[worker_init]`", &mut errors);
    let is_fallible = is_fallible(&function.sig, &mut errors);
    if let Some(error) = errors.0 {
        return with_error(function.into_token_stream(), error);
    }

    let (name, shared) = (&function.sig.ident, signature::shared(&function.attrs));
    let (item, plain) = (signature::repeated(name), name.unraw().to_string());
    let (allow, import) =
        (signature::allow_deprecated(&function.attrs), options.mobula.unwrap_or_default().import());
    let outcome = if is_fallible {
        let as_error = signature::as_error();
        // If the error cannot be shown, the compiler points at the return type.
        let span = function.sig.output.span().resolved_at(Span::call_site());
        quote_spanned!(span=> __mobula::__private::fallible_init(#item(), #as_error))
    } else {
        quote! {
            #item();
            ::core::result::Result::Ok(())
        }
    };
    quote! {
        #function

        #(#shared)*
        #allow
        const _: () = {
            #import

            fn __run() -> __mobula::__private::Outcome {
                #outcome
            }

            #[__mobula::__private::linkme::distributed_slice(__mobula::__private::WORKER_INITS)]
            #[linkme(crate = __mobula::__private::linkme)]
            static __INIT: __mobula::__private::WorkerInit = __mobula::__private::WorkerInit::new(
                ::core::concat!(::core::module_path!(), "::", #plain),
                __run,
            );
        };
    }
}

/// Whether it returns a `Result`. Refuses anything else but nothing.
fn is_fallible(signature: &Signature, errors: &mut Errors) -> bool {
    match &signature.output {
        ReturnType::Default => false,
        ReturnType::Type(_, ty) => match &**ty {
            Type::Tuple(tuple) if tuple.elems.is_empty() => false,
            Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Result") => true,
            other => {
                errors.push(
                    other,
                    "a function with `#[worker_init]` returns nothing, or a `Result<(), E>`: nobody takes a value",
                );
                false
            }
        },
    }
}
