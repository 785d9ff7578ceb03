//! Tokens of the signature that the generated code repeats or removes: attributes, visibility, `Self`.

use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::{Attribute, FnArg, ReturnType, Type};

/// The attributes that decide whether an item exists at all.
pub(crate) fn cfg(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect()
}

/// The user's attributes of the whole item that also apply to the items added beside it. They decide whether it exists
/// at all, and which warnings it may cause, such as those about a deprecated type in its signature.
pub(crate) fn shared(attributes: &[Attribute]) -> Vec<Attribute> {
    let shared = ["cfg", "allow"];
    let is_shared = |attribute: &&Attribute| shared.iter().any(|name| attribute.path().is_ident(name));
    attributes.iter().filter(is_shared).cloned().collect()
}

/// Allows the generated code to use deprecated items.
pub(crate) fn allow_deprecated<'a>(
    attributes: impl IntoIterator<Item = &'a Attribute>,
) -> Option<TokenStream> {
    let mut attributes = attributes.into_iter();
    attributes.any(|attribute| attribute.path().is_ident("deprecated")).then(|| quote!(#[allow(deprecated)]))
}

/// The user's tokens as if this macro had written them. Errors still point at them, but lints take them for generated
/// code: names and visibilities repeated here are not the user's to mend, and an `#[allow]` would be an error under a
/// crate's `#![forbid]`.
pub(crate) fn repeated(tokens: impl ToTokens) -> TokenStream {
    let repeat = |token: TokenTree| {
        let span = token.span().resolved_at(Span::call_site());
        let mut token = match token {
            TokenTree::Group(group) => Group::new(group.delimiter(), repeated(group.stream())).into(),
            other => other,
        };
        token.set_span(span);
        token
    };
    tokens.into_token_stream().into_iter().map(repeat).collect()
}

/// Replaces `Self` by the type it stands for.
pub(crate) fn replace_self(signature: &mut syn::Signature, actor: &Type) {
    let types = signature.inputs.iter_mut().filter_map(|input| match input {
        FnArg::Typed(typed) => Some(&mut *typed.ty),
        FnArg::Receiver(_) => None,
    });
    let output = match &mut signature.output {
        ReturnType::Type(_, ty) => Some(&mut **ty),
        ReturnType::Default => None,
    };
    for ty in types.chain(output) {
        let tokens = replace_self_in(ty.to_token_stream(), actor);
        // A path in place of another parses everywhere. If it does not, the error of the compiler is better.
        *ty = syn::parse2(tokens.clone()).unwrap_or(Type::Verbatim(tokens));
    }
}

/// Removes the doc comments of the arguments, because the compiler does not allow them there. [`Arguments::read`] keeps
/// them.
pub(crate) fn strip_argument_docs(signature: &mut syn::Signature) {
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input {
            typed.attrs.retain(|attribute| !attribute.path().is_ident("doc"));
        }
    }
}

/// Replaces `Self` in any tokens.
pub(crate) fn replace_self_in(tokens: TokenStream, actor: &Type) -> TokenStream {
    let replace = |token| match token {
        TokenTree::Ident(ident) if ident == "Self" => {
            // An error in the type then points at `Self`, where it is used.
            let located = |mut token: TokenTree| {
                token.set_span(ident.span().resolved_at(token.span()));
                token
            };
            actor.to_token_stream().into_iter().map(located).collect()
        }
        TokenTree::Group(group) => {
            let mut replaced = Group::new(group.delimiter(), replace_self_in(group.stream(), actor));
            replaced.set_span(group.span());
            TokenTree::Group(replaced).into()
        }
        other => TokenStream::from(other),
    };
    tokens.into_iter().map(replace).collect()
}
