//! The generic parameters of a block, which is registered once for each of its instances.
//!
//! There is one constant for each of them, in which the parameters are aliases of their types, as in
//! `type T = i32;`.

use proc_macro2::{Group, Ident, TokenStream, TokenTree};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{GenericParam, ItemImpl, Type};

use crate::options::{ActorOptions, Instance};

/// The generic arguments of one class of a block.
pub(super) struct Instantiated<'a>(Vec<(&'a GenericParam, TokenStream)>);

impl Instantiated<'_> {
    /// `type T = i32;`
    pub(super) fn aliases(&self) -> TokenStream {
        let alias = |(param, argument): &(&GenericParam, TokenStream)| match param {
            GenericParam::Const(param) => {
                let (name, ty) = (&param.ident, &param.ty);
                // An argument may need braces.
                quote!(#[allow(unused_braces)] const #name: #ty = #argument;)
            }
            GenericParam::Type(param) => {
                let name = &param.ident;
                quote!(type #name = #argument;)
            }
            GenericParam::Lifetime(_) => TokenStream::new(),
        };
        self.0.iter().map(alias).collect()
    }

    /// The argument of the parameter of this name.
    fn argument(&self, name: &Ident) -> Option<&TokenStream> {
        let is_it = |param: &GenericParam| match param {
            GenericParam::Const(param) => param.ident == *name,
            GenericParam::Type(param) => param.ident == *name,
            GenericParam::Lifetime(_) => false,
        };
        self.0.iter().find(|(param, _)| is_it(param)).map(|(_, argument)| argument)
    }
}

/// The classes of a block: one, or one for each instance of its parameters.
pub(super) fn instantiate<'a>(
    block: &'a ItemImpl,
    options: &ActorOptions,
) -> syn::Result<Vec<Instantiated<'a>>> {
    let params = &block.generics.params;
    let Some((_, instances)) = &options.instances else { return Ok(vec![Instantiated(Vec::new())]) };
    let instantiate = |instance: &Instance| {
        let arguments = match &instance.parts {
            Some(parts) if params.len() > 1 => parts.clone(),
            _ => vec![instance.whole.clone()],
        };
        if arguments.len() != params.len() {
            let message = format!(
                "the block has {} parameters: write an argument for each, in parentheses",
                params.len()
            );
            return Err(syn::Error::new_spanned(&instance.whole, message));
        }
        Ok(Instantiated(params.iter().zip(arguments).collect()))
    };
    instances.iter().map(instantiate).collect()
}

/// The type's name as the user knows it: `Counter`, or `shapes::Counter` where the block names it so; `Stack<i32>`
/// where it has parameters.
pub(super) fn class_name(actor: &Type, instance: &Instantiated<'_>) -> String {
    tidy(&with_arguments(actor.to_token_stream(), instance).to_string())
}

/// Replaces the parameters by their arguments.
fn with_arguments(tokens: TokenStream, instance: &Instantiated<'_>) -> TokenStream {
    let replace = |token| match token {
        TokenTree::Ident(ident) => match instance.argument(&ident) {
            Some(argument) => argument.clone(),
            None => ident.unraw().to_token_stream(),
        },
        TokenTree::Group(group) => {
            TokenTree::Group(Group::new(group.delimiter(), with_arguments(group.stream(), instance))).into()
        }
        other => TokenStream::from(other),
    };
    tokens.into_iter().map(replace).collect()
}

/// The text of tokens, with spaces between words and behind commas alone.
fn tidy(text: &str) -> String {
    let mut tidied = String::new();
    let is_word = |character: char| character.is_alphanumeric() || character == '_';
    let mut words = text.split_whitespace().peekable();
    while let Some(word) = words.next() {
        tidied.push_str(word);
        let Some(next) = words.peek().and_then(|next| next.chars().next()) else { break };
        let last = tidied.chars().next_back().unwrap_or_default();
        if is_word(last) && is_word(next) || matches!(last, ',' | ';') {
            tidied.push(' ');
        }
    }
    tidied
}
