//! The result of a remote call: its number of objects, and the code that sends it.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{ReturnType, Type, parse_quote};

use super::types::{bare, check_owned, is_polled, item_of, list_of, result_of};
use crate::Errors;
use crate::options::{MethodOptions, Mobula, NumReturns};

/// The result of a remote call.
pub(crate) struct Returns {
    /// Whether it comes inside a `Result`.
    fallible: bool,
    /// The type itself, taken out of a `Result`.
    ty: Type,
    /// The span of the whole return type.
    written: Span,
    shape: Shape,
}

/// The number of objects of a result.
enum Shape {
    /// One.
    One,
    /// One for each of these types, the elements of a tuple.
    Tuple(Vec<Type>),
    /// One, or one for each element if the caller asks for that; the elements have this type.
    List(Box<Type>),
    /// One, a list of references to elements of the type.
    Dynamic,
    /// A stream of items of the type.
    Stream(Items),
    /// One, which the method sends later.
    Later,
}

/// The items of a stream.
#[derive(Clone, Copy)]
struct Items {
    /// Each of them is in a `Result`.
    fallible: bool,
    source: Source,
}

/// The source of the items of a stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Iterator,
    /// An iterator that an `async` method has returned.
    Awaited,
    /// An implementation of the trait `Stream`.
    Polled,
}

impl Returns {
    /// Reads the return type of a function or method. A `Vec` can become several objects if `lists` allows it.
    pub(crate) fn read(
        signature: &syn::Signature,
        num_returns: Option<&NumReturns>,
        lists: bool,
        errors: &mut Errors,
    ) -> Self {
        let written = match &signature.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        };
        let inner = result_of(&written);
        let fallible = inner.is_some();
        let ty = inner.unwrap_or(written.clone());
        check_owned(&ty, "return an owned value", errors);
        if let Type::Never(_) = ty {
            errors.push(&ty, "a remote call must return: a wait for its result would never end");
        }

        if let Some(number) = num_returns
            && number.count == 0
        {
            let ty = list_of(&ty).unwrap_or_else(|| {
                errors
                    .push(&number.literal, "the return type is no list: return a `Vec`, or a `Result` of it");
                ty.clone()
            });
            return Returns { fallible, ty, written: written.span(), shape: Shape::Dynamic };
        }
        let shape = match num_returns {
            Some(number) if number.count > 1 => Shape::Tuple(elements_of(&ty, number, errors)),
            _ => match list_of(&ty) {
                Some(element) if lists => Shape::List(Box::new(element)),
                _ => Shape::One,
            },
        };
        Returns { fallible, ty, written: written.span(), shape }
    }

    /// The result of a method that answers later with this type.
    pub(crate) fn read_later(
        signature: &syn::Signature,
        answer: &Type,
        options: &MethodOptions,
        errors: &mut Errors,
    ) -> Self {
        let is_unit = |ty: &Type| matches!(bare(ty), Type::Tuple(tuple) if tuple.elems.is_empty());
        if let ReturnType::Type(_, ty) = &signature.output
            && !is_unit(ty)
        {
            errors.push(ty, "the method answers by its `Reply`: it returns nothing itself");
        }
        if let Some(number) = &options.num_returns {
            errors.push(&number.literal, "a `Reply` is one result: leave `num_returns` out");
        }
        if options.streaming.is_set {
            errors.push(&signature.ident, "a `Reply` is one result, and no stream: leave `streaming` out");
        }
        Returns { fallible: false, ty: answer.clone(), written: answer.span(), shape: Shape::Later }
    }

    /// Reads the return type of a function whose results are a stream.
    pub(crate) fn read_stream(
        signature: &syn::Signature,
        num_returns: Option<&NumReturns>,
        errors: &mut Errors,
    ) -> Self {
        if let Some(number) = num_returns {
            errors.push(&number.literal, "a stream has any number of results: leave `num_returns` out");
        }
        let written: Type = match &signature.output {
            ReturnType::Default => parse_quote!(()),
            ReturnType::Type(_, ty) => (**ty).clone(),
        };
        let Some(item) = item_of(&written).or_else(|| list_of(&written)) else {
            errors.push(
                &written,
                "a stream is returned as `impl Iterator<Item = T>`, with an item `T` or `Result<T, E>`, or as a `Vec`",
            );
            return Returns {
                fallible: false,
                ty: parse_quote!(()),
                written: written.span(),
                shape: Shape::One,
            };
        };
        let inner = result_of(&item);
        let fallible = inner.is_some();
        let ty = inner.unwrap_or(item);
        check_owned(&ty, "return owned items", errors);
        let source = match (is_polled(&written), &signature.asyncness) {
            (true, Some(token)) => {
                errors
                    .push(token, "a method that returns a `Stream` is not `async`: the stream itself waits");
                Source::Polled
            }
            (true, None) => Source::Polled,
            (false, Some(_)) => Source::Awaited,
            (false, None) => Source::Iterator,
        };
        let shape = Shape::Stream(Items { fallible, source });
        Returns { fallible: false, ty, written: written.span(), shape }
    }

    /// Whether the results are a `Stream`, which is polled like a future.
    pub(crate) fn is_polled_stream(&self) -> bool {
        matches!(self.shape, Shape::Stream(Items { source: Source::Polled, .. }))
    }

    /// Whether the results are a stream.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.shape, Shape::Stream(_))
    }

    /// Turns the value of `call`, in the called process, into the results, in the form that the caller of `arguments`
    /// asked for.
    pub(crate) fn outcome(&self, arguments: &Ident, call: &TokenStream) -> TokenStream {
        let (shape, ty) = match &self.shape {
            Shape::One | Shape::Stream(_) | Shape::Later => ("", &self.ty),
            Shape::Dynamic => ("_dynamic", &self.ty),
            Shape::Tuple(_) => ("_tuple", &self.ty),
            Shape::List(element) => ("_list", &**element),
        };
        // The type's own tokens let the compiler point at them if it cannot be encoded, and the span of the written
        // type if its error cannot be shown.
        let span = self.written.resolved_at(Span::call_site());
        let wanted = quote_spanned!(span=> __mobula::__private::Arguments::wanted(#arguments));
        if let Shape::Later = self.shape {
            return quote_spanned!(span=> { let () = #call; ::core::result::Result::Ok(()) });
        }
        if let Shape::Stream(Items { fallible, source }) = self.shape {
            let (name, awaited) = match source {
                Source::Iterator => ("streamed", None),
                Source::Awaited => ("streamed_async", Some(quote_spanned!(span=> .await))),
                Source::Polled => ("streamed_from", Some(quote_spanned!(span=> .await))),
            };
            let suffix = if fallible { "_fallible" } else { "" };
            let streamed = format_ident!("{name}{suffix}", span = span);
            return if fallible {
                let as_error = as_error();
                quote_spanned!(span=>
                    __mobula::__private::#streamed::<#ty, _>(#wanted, #call, #as_error) #awaited
                )
            } else {
                quote_spanned!(span=> __mobula::__private::#streamed::<#ty>(#wanted, #call) #awaited)
            };
        }
        if self.fallible {
            let outcome = format_ident!("fallible{shape}", span = span);
            let as_error = as_error();
            quote_spanned!(span=> __mobula::__private::#outcome::<#ty, _>(#wanted, #call, #as_error))
        } else {
            let outcome = format_ident!("infallible{shape}", span = span);
            quote_spanned!(span=> __mobula::__private::#outcome::<#ty>(#wanted, #call))
        }
    }

    /// The return type of `remote`.
    pub(crate) fn reference(&self) -> TokenStream {
        match &self.shape {
            Shape::Tuple(elements) => quote!((#(__mobula::ObjectRef<#elements>,)*)),
            Shape::One | Shape::List(_) | Shape::Later => {
                let ty = &self.ty;
                quote!(__mobula::ObjectRef<#ty>)
            }
            Shape::Dynamic => {
                let ty = &self.ty;
                quote!(__mobula::ObjectRef<::std::vec::Vec<__mobula::ObjectRef<#ty>>>)
            }
            Shape::Stream(_) => {
                let ty = &self.ty;
                quote!(__mobula::ObjectRefStream<#ty>)
            }
        }
    }

    /// Calls `callee` with `how`. At most `in_flight_max` items of a stream are in flight.
    pub(crate) fn call(
        &self,
        callee: &TokenStream,
        how: &TokenStream,
        in_flight_max: &TokenStream,
    ) -> TokenStream {
        let ty = &self.ty;
        match &self.shape {
            Shape::Tuple(_) => quote!(#callee.call_tuple::<#ty>(#how)),
            Shape::One | Shape::List(_) | Shape::Later => quote!(#callee.call::<#ty>(#how)),
            Shape::Dynamic => quote!(#callee.call::<::std::vec::Vec<__mobula::ObjectRef<#ty>>>(#how)),
            Shape::Stream(_) => quote!(#callee.call_streaming::<#ty>(#how, #in_flight_max)),
        }
    }

    /// The type of the elements, if the result can become several objects.
    pub(crate) fn list(&self) -> Option<&Type> {
        match &self.shape {
            Shape::List(element) => Some(element),
            Shape::One | Shape::Tuple(_) | Shape::Dynamic | Shape::Stream(_) | Shape::Later => None,
        }
    }

    /// The return type of `remote`, for the documentation.
    pub(crate) fn shown(&self, mobula: &Mobula) -> String {
        let link = mobula.link("ObjectRef");
        match self.shape {
            Shape::Tuple(_) => format!("an {link} to each element of the result"),
            Shape::One | Shape::List(_) | Shape::Later => format!("an {link} to the result"),
            Shape::Dynamic => format!("an {link} to a list of references to its elements"),
            Shape::Stream(_) => format!("an {} of its items", mobula.link("ObjectRefStream")),
        }
    }
}

/// Code that converts the returned value into an error with sources. Only the compiler knows there whether its type is
/// an error.
pub(crate) fn as_error() -> TokenStream {
    quote! {
        |error| {
            #[allow(unused_imports)]
            use __mobula::__private::{OfBox as _, OfError as _, OfSendBox as _, OfText as _};
            (&&&&__mobula::__private::Returned(error)).as_error()
        }
    }
}

fn elements_of(ty: &Type, number: &NumReturns, errors: &mut Errors) -> Vec<Type> {
    let wanted = number.count;
    match bare(ty) {
        Type::Tuple(tuple) if tuple.elems.len() == wanted => tuple.elems.iter().cloned().collect(),
        Type::Tuple(tuple) if !tuple.elems.is_empty() => {
            let found = tuple.elems.len();
            let message = format!("the return type is a tuple of {found} elements, not of {wanted}");
            errors.push(&number.literal, message);
            Vec::new()
        }
        _ => {
            let message =
                format!("the return type is no tuple: return one of {wanted} elements, or a `Result` of it");
            errors.push(&number.literal, message);
            Vec::new()
        }
    }
}
