//! What stands inside the parentheses of `#[remote(…)]`, on functions, `impl` blocks and methods.
//!
//! Only reading happens here. Whether a number fits the function below it is decided in `signature`.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Attribute, LitInt, LitStr, Meta, Result};

/// The largest tuple whose elements can become objects of their own, as `mobula` implements them.
const NUM_RETURNS_MAX: usize = 8;

/// The options of a remote function.
#[derive(Default)]
pub(crate) struct FunctionOptions {
    pub(crate) num_returns: Option<NumReturns>,
    /// As the user wrote it, known to fit a `u32`.
    pub(crate) max_retries: Option<LitInt>,
    /// Known not to be empty.
    pub(crate) name: Option<LitStr>,
}

/// The options of one method of an actor.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) num_returns: Option<NumReturns>,
    /// The handle does not have this method.
    pub(crate) local: bool,
}

/// Into how many objects a result is split, and where that is written.
pub(crate) struct NumReturns {
    pub(crate) count: usize,
    pub(crate) literal: LitInt,
}

impl FunctionOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = FunctionOptions::default();
        parse(tokens, |meta| {
            if meta.path.is_ident("num_returns") {
                set(&meta, &mut options.num_returns, num_returns)
            } else if meta.path.is_ident("max_retries") {
                set(&meta, &mut options.max_retries, max_retries)
            } else if meta.path.is_ident("name") {
                set(&meta, &mut options.name, name)
            } else {
                Err(unknown(&meta, "a remote function takes `num_returns`, `max_retries` and `name`"))
            }
        })?;
        Ok(options)
    }
}

impl MethodOptions {
    /// Reads and removes the attributes `#[remote(…)]` and `#[mobula::remote(…)]` of a method: they are this macro's
    /// own, and the compiler would run it on the method alone.
    pub(crate) fn take(attributes: &mut Vec<Attribute>) -> Result<Self> {
        let mut options = MethodOptions::default();
        let own: Vec<_> = attributes.extract_if(.., |attribute| is_remote(attribute)).collect();
        for attribute in own {
            let tokens = match attribute.meta {
                Meta::Path(_) => TokenStream::new(),
                Meta::List(list) => list.tokens,
                Meta::NameValue(value) => {
                    return Err(syn::Error::new_spanned(value, "write `#[remote(option)]`"));
                }
            };
            parse(tokens, |meta| {
                if meta.path.is_ident("num_returns") {
                    set(&meta, &mut options.num_returns, num_returns)
                } else if meta.path.is_ident("local") {
                    options.local = true;
                    Ok(())
                } else {
                    Err(unknown(&meta, "a method of an actor takes `num_returns` and `local`"))
                }
            })?;
        }
        Ok(options)
    }
}

/// Refuses any option: an `impl` block takes none.
pub(crate) fn parse_for_impl(tokens: TokenStream) -> Result<()> {
    parse(tokens, |meta| {
        Err(unknown(
            &meta,
            "an `impl` block takes none; how an actor runs is said with `options(ActorOptions)`",
        ))
    })
}

/// Whether the attribute is `#[remote]`, however it was imported.
pub(crate) fn is_remote(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "remote")
}

fn parse(tokens: TokenStream, each: impl FnMut(ParseNestedMeta) -> Result<()>) -> Result<()> {
    syn::meta::parser(each).parse2(tokens)
}

fn unknown(meta: &ParseNestedMeta, known: &str) -> syn::Error {
    let name = meta.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
    syn::Error::new_spanned(&meta.path, format!("unknown option `{name}`: {known}"))
}

fn set<T>(
    meta: &ParseNestedMeta,
    option: &mut Option<T>,
    read: fn(&ParseNestedMeta) -> Result<T>,
) -> Result<()> {
    if option.is_some() {
        return Err(syn::Error::new_spanned(&meta.path, "this option is given twice"));
    }
    *option = Some(read(meta)?);
    Ok(())
}

fn num_returns(meta: &ParseNestedMeta) -> Result<NumReturns> {
    let literal: LitInt = meta.value()?.parse()?;
    match literal.base10_parse() {
        Ok(count @ 1..=NUM_RETURNS_MAX) => Ok(NumReturns { count, literal }),
        _ => Err(syn::Error::new_spanned(
            literal,
            format!("`num_returns` is a number of objects, from 1 to {NUM_RETURNS_MAX}"),
        )),
    }
}

fn max_retries(meta: &ParseNestedMeta) -> Result<LitInt> {
    let literal: LitInt = meta.value()?.parse()?;
    match literal.base10_parse::<u32>() {
        Ok(_) => Ok(literal),
        Err(_) => Err(syn::Error::new_spanned(literal, "`max_retries` is a number of retries, 0 or more")),
    }
}

fn name(meta: &ParseNestedMeta) -> Result<LitStr> {
    let literal: LitStr = meta.value()?.parse()?;
    if literal.value().is_empty() {
        return Err(syn::Error::new_spanned(literal, "the name of a remote function is not empty"));
    }
    Ok(literal)
}
