//! Arguments and return types: which of them may cross to another process, and the code that takes them there.
//!
//! Types are known here only as they are written. So `Result` and `Vec` are recognised by the last segment of their
//! path, and a lifetime that a type hides is the compiler's to find.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{
    Attribute, Expr, FnArg, GenericArgument, Lit, Meta, Pat, PathArguments, ReturnType, Safety, Type,
    parse_quote,
};

use crate::Errors;
use crate::options::{MethodOptions, Mobula, NumReturns};

/// The arguments of a remote call, `self` left out.
pub(crate) struct Arguments {
    arguments: Vec<Argument>,
    reply: Option<ReplyArgument>,
}

/// The argument through which a method answers later: a `Reply<T>`, which the caller does not give.
struct ReplyArgument {
    /// Its place among the arguments.
    index: usize,
    /// The type as it is written.
    ty: Type,
    /// `T`.
    answer: Type,
}

/// One argument.
struct Argument {
    /// Its name in the generated `remote`, made up where the pattern has none.
    name: Ident,
    ty: Type,
    /// `#[cfg(…)]` of the argument: every trace of it carries them.
    cfg: Vec<Attribute>,
    docs: Vec<String>,
}

/// The result of a remote call.
pub(crate) struct Returns {
    /// Whether it comes inside a `Result`.
    fallible: bool,
    /// The type itself, taken out of a `Result`.
    ty: Type,
    /// Where the whole return type stands.
    written: Span,
    shape: Shape,
}

/// How many objects a result is.
enum Shape {
    /// One.
    One,
    /// One for each of these types, the elements of a tuple.
    Tuple(Vec<Type>),
    /// One, or one for each element if the caller wants so; the elements have this type.
    List(Box<Type>),
    /// One, a list of references to elements of the type.
    Dynamic,
    /// A stream of items of the type.
    Stream(Items),
    /// One, which is given later.
    Later,
}

/// The items of a stream.
#[derive(Clone, Copy)]
struct Items {
    /// Each of them is in a `Result`.
    fallible: bool,
    source: Source,
}

/// How the items of a stream come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    Iterator,
    /// An iterator that an `async` method has returned.
    Awaited,
    /// An implementation of the trait `Stream`.
    Polled,
}

/// Refuses everything that keeps a function from being registered once and called from another process.
pub(crate) fn check_qualifiers(signature: &syn::Signature, what: &str, errors: &mut Errors) {
    if let Some(token) = &signature.asyncness {
        errors.push(
            token,
            format!("{what} is not `async`: a remote call returns at once as it is, and the body may block"),
        );
    }
    check_other_qualifiers(signature, what, errors);
}

/// The same, for a method of an actor, which may be `async`.
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

/// The attributes that decide whether an item exists at all.
pub(crate) fn cfg(attributes: &[Attribute]) -> Vec<Attribute> {
    attributes.iter().filter(|attribute| attribute.path().is_ident("cfg")).cloned().collect()
}

/// The user's attributes of the whole item that also hold for the items added beside it. They say whether it exists at
/// all, and which warnings it may cause, such as those about a deprecated type in its signature.
pub(crate) fn shared(attributes: &[Attribute]) -> Vec<Attribute> {
    let shared = ["cfg", "allow"];
    let is_shared = |attribute: &&Attribute| shared.iter().any(|name| attribute.path().is_ident(name));
    attributes.iter().filter(is_shared).cloned().collect()
}

/// Lets the glue use items that are deprecated for others.
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
        // A path in place of another parses at every place. If it does not, the compiler's own error says so better.
        *ty = syn::parse2(tokens.clone()).unwrap_or(Type::Verbatim(tokens));
    }
}

/// Takes the doc comments off the arguments, where the compiler does not allow them. [`Arguments::read`] keeps them.
pub(crate) fn strip_argument_docs(signature: &mut syn::Signature) {
    for input in &mut signature.inputs {
        if let FnArg::Typed(typed) = input {
            typed.attrs.retain(|attribute| !attribute.path().is_ident("doc"));
        }
    }
}

impl Arguments {
    /// Reads the arguments of a function or method.
    pub(crate) fn read(signature: &syn::Signature, errors: &mut Errors) -> Self {
        let mut arguments: Vec<Argument> = Vec::new();
        let mut reply: Option<ReplyArgument> = None;
        for input in &signature.inputs {
            let FnArg::Typed(typed) = input else { continue };
            if let Some(answer) = generic_argument(&typed.ty, "Reply") {
                check_owned(&answer, "answer with an owned value", errors);
                if reply.is_some() {
                    errors.push(&typed.ty, "a call has one answer: take one `Reply`");
                }
                if let Some(cfg) = cfg(&typed.attrs).first() {
                    errors
                        .push(cfg, "the `Reply` decides what the method returns: put `#[cfg]` on the method");
                }
                reply = Some(ReplyArgument { index: arguments.len(), ty: (*typed.ty).clone(), answer });
                continue;
            }
            check_owned(&typed.ty, "take an owned value", errors);
            let named = name_of(&typed.pat).filter(|name| arguments.iter().all(|other| other.name != *name));
            let name = named.unwrap_or_else(|| format_ident!("argument_{}", arguments.len()));
            let cfg = cfg(&typed.attrs);
            let docs = typed.attrs.iter().filter_map(doc_text).collect();
            arguments.push(Argument { name, ty: (*typed.ty).clone(), cfg, docs });
        }
        Arguments { arguments, reply }
    }

    /// Refuses a `Reply`: `what` answers by returning.
    pub(crate) fn refuse_reply(&self, what: &str, errors: &mut Errors) {
        if let Some(reply) = &self.reply {
            errors.push(&reply.ty, format!("{what}: a `Reply` is for methods of actors"));
        }
    }

    /// The type of the answer that a method gives later.
    pub(crate) fn answer(&self) -> Option<&Type> {
        self.reply.as_ref().map(|reply| &reply.answer)
    }

    /// `a: impl IntoArg<A>, b: impl IntoArg<B>`
    pub(crate) fn parameters(&self) -> TokenStream {
        self.each(
            |Argument { name, ty, cfg, .. }| quote!(#(#cfg)* #name: impl __mobula::__private::IntoArg<#ty>,),
        )
    }

    /// `a, b`
    pub(crate) fn names(&self) -> TokenStream {
        self.each(|Argument { name, cfg, .. }| quote!(#(#cfg)* #name,))
    }

    /// Statements that hand the parameters to the call in the variable `call`.
    pub(crate) fn attach(&self, call: &Ident) -> TokenStream {
        self.each(|Argument { name, ty, cfg, .. }| {
            quote!(#(#cfg)* let #call = <#ty as __mobula::__private::Portable>::give(#call, #name);)
        })
    }

    /// Statements that decode the arguments, in the process that was called, from the variable `arguments`. `callee` is
    /// an expression of the name that errors of a reply have.
    pub(crate) fn decode(&self, arguments: &Ident, callee: &TokenStream) -> TokenStream {
        let decoded = self.each_numbered(|number, Argument { ty, cfg, .. }| {
            quote!(#(#cfg)* let #number = <#ty as __mobula::__private::Portable>::take(#arguments)?;)
        });
        // Taken last: an error of the arguments is the answer itself.
        let reply = self.reply.as_ref().map(|ReplyArgument { answer, .. }| {
            let reply = reply_name();
            quote!(let #reply = __mobula::__private::take_reply::<#answer>(#arguments, #callee)?;)
        });
        quote!(#decoded __mobula::__private::Arguments::finish(#arguments)?; #reply)
    }

    /// The decoded arguments, as a call takes them.
    pub(crate) fn decoded(&self) -> TokenStream {
        let mut names: Vec<_> =
            self.numbered(|number, Argument { cfg, .. }| quote!(#(#cfg)* #number,)).collect();
        if let Some(ReplyArgument { index, .. }) = &self.reply {
            let reply = reply_name();
            names.insert(*index, quote!(#reply,));
        }
        names.into_iter().collect()
    }

    /// How a call is written, for the documentation: `a, b`.
    pub(crate) fn shown(&self) -> String {
        self.arguments.iter().map(|argument| argument.name.to_string()).collect::<Vec<_>>().join(", ")
    }

    /// The user's documentation of the arguments, as attributes.
    pub(crate) fn docs(&self) -> TokenStream {
        let lines = self.arguments.iter().filter(|argument| !argument.docs.is_empty()).map(|argument| {
            let text: Vec<_> = argument.docs.iter().map(|line| line.trim()).collect();
            format!("- `{}`: {}", argument.name, text.join(" "))
        });
        let mut lines = lines.peekable();
        if lines.peek().is_none() {
            return TokenStream::new();
        }
        quote!(#[doc = ""] #[doc = "# Arguments"] #[doc = ""] #(#[doc = #lines])*)
    }

    fn each(&self, code: impl Fn(&Argument) -> TokenStream) -> TokenStream {
        self.arguments.iter().map(code).collect()
    }

    fn each_numbered(&self, code: impl Fn(Ident, &Argument) -> TokenStream) -> TokenStream {
        self.numbered(code).collect()
    }

    fn numbered<'a>(
        &'a self,
        code: impl Fn(Ident, &Argument) -> TokenStream + 'a,
    ) -> impl Iterator<Item = TokenStream> + 'a {
        let number = |index| format_ident!("__a{}", index, span = Span::mixed_site());
        self.arguments.iter().enumerate().map(move |(index, argument)| code(number(index), argument))
    }
}

fn reply_name() -> Ident {
    Ident::new("reply", Span::mixed_site())
}

/// Code that takes the returned value as an error with sources. Only there is it known whether its type is one.
pub(crate) fn as_error() -> TokenStream {
    quote! {
        |error| {
            #[allow(unused_imports)]
            use __mobula::__private::{OfBox as _, OfError as _, OfSendBox as _, OfText as _};
            (&&&&__mobula::__private::Returned(error)).as_error()
        }
    }
}

impl Returns {
    /// Reads the return type of a function or method. A `Vec` can become several objects where `lists` says so.
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
            errors.push(&ty, "a remote call returns: whoever waits for its result would wait for ever");
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

    /// Turns the value of `call`, in the called process, into the results that go back, in the form that the caller who
    /// sent `arguments` wants.
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

    /// Submits the call in the variable `call`. At most `in_flight_max` items of a stream are in flight.
    pub(crate) fn submit(&self, call: &Ident, in_flight_max: &TokenStream) -> TokenStream {
        let ty = &self.ty;
        match &self.shape {
            Shape::Tuple(_) => quote!(#call.submit_tuple::<#ty>()),
            Shape::One | Shape::List(_) | Shape::Later => quote!(#call.submit::<#ty>()),
            Shape::Dynamic => quote!(#call.submit::<::std::vec::Vec<__mobula::ObjectRef<#ty>>>()),
            Shape::Stream(_) => quote!(#call.submit_stream::<#ty>(#in_flight_max)),
        }
    }

    /// The type of the elements, where the result can become several objects.
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

/// The `T` of a type that is written as a `Result<T, …>`.
pub(crate) fn result_of(ty: &Type) -> Option<Type> {
    generic_argument(ty, "Result")
}

/// A type without the invisible or visible parentheses around it: macros by example put the former there.
pub(crate) fn bare(ty: &Type) -> &Type {
    match ty {
        Type::Group(group) => bare(&group.elem),
        Type::Paren(paren) => bare(&paren.elem),
        other => other,
    }
}

/// The `T` of a type that is written as a `Vec<T>`.
fn list_of(ty: &Type) -> Option<Type> {
    generic_argument(ty, "Vec")
}

/// The `T` of a type that is written as an `impl Iterator<Item = T>` or a `Box<dyn Iterator<Item = T>>`.
fn item_of(ty: &Type) -> Option<Type> {
    let bounds = match bare(ty) {
        Type::ImplTrait(opaque) => &opaque.bounds,
        Type::TraitObject(object) => &object.bounds,
        other => return item_of(&pointee(other)?),
    };
    let arguments = bounds.iter().filter_map(|bound| match bound {
        syn::TypeParamBound::Trait(bound) => match &bound.path.segments.last()?.arguments {
            PathArguments::AngleBracketed(arguments) => Some(&arguments.args),
            _ => None,
        },
        _ => None,
    });
    arguments.flatten().find_map(|argument| match argument {
        GenericArgument::AssocType(item) if item.ident == "Item" => Some(item.ty.clone()),
        _ => None,
    })
}

/// Whether the type is written as an `impl Stream<…>`, or a `dyn Stream<…>` in pointers.
fn is_polled(ty: &Type) -> bool {
    let bounds = match bare(ty) {
        Type::ImplTrait(opaque) => &opaque.bounds,
        Type::TraitObject(object) => &object.bounds,
        other => return pointee(other).is_some_and(|inner| is_polled(&inner)),
    };
    bounds.iter().any(|bound| match bound {
        syn::TypeParamBound::Trait(bound) => {
            bound.path.segments.last().is_some_and(|last| last.ident == "Stream")
        }
        _ => false,
    })
}

/// The type in a `Box` or a `Pin`.
fn pointee(ty: &Type) -> Option<Type> {
    generic_argument(ty, "Box").or_else(|| generic_argument(ty, "Pin"))
}

/// The first generic argument of a path that ends in `name`.
fn generic_argument(ty: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = bare(ty) else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
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

/// The name of an argument, where its pattern has one: without the underscores that say the body does not use it.
fn name_of(pattern: &Pat) -> Option<Ident> {
    let Pat::Ident(pattern) = pattern else { return None };
    let written = pattern.ident.to_string();
    let name = written.trim_start_matches('_');
    if name == written {
        return Some(pattern.ident.clone());
    }
    let mut ident: Ident = syn::parse_str(name).ok()?;
    ident.set_span(pattern.ident.span());
    Some(ident)
}

fn doc_text(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

fn replace_self_in(tokens: TokenStream, actor: &Type) -> TokenStream {
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

/// Refuses all parts of a type that borrow from the caller, or leave the type open.
fn check_owned(ty: &Type, instead: &str, errors: &mut Errors) {
    Borrows { instead, errors }.visit_type(ty);
}

struct Borrows<'a> {
    instead: &'a str,
    errors: &'a mut Errors,
}

impl<'ast> Visit<'ast> for Borrows<'_> {
    fn visit_type_reference(&mut self, reference: &'ast syn::TypeReference) {
        let owned = match bare(&reference.elem) {
            Type::Path(path) if path.path.is_ident("str") => ", a `String`".to_owned(),
            Type::Path(path) if path.path.segments.last().is_some_and(|last| last.ident == "Path") => {
                ", a `PathBuf`".to_owned()
            }
            Type::Slice(_) => ", a `Vec`".to_owned(),
            _ => String::new(),
        };
        let message = format!("{}{owned}: another process cannot borrow from this one", self.instead);
        self.errors.push(reference, message);
    }

    fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
        if lifetime.ident != "static" {
            self.errors
                .push(lifetime, format!("{}: another process cannot borrow from this one", self.instead));
        }
    }

    fn visit_type_impl_trait(&mut self, opaque: &'ast syn::TypeImplTrait) {
        self.errors.push(opaque, "name the type: another process must know which one to make from the bytes");
    }

    // Function pointers and `Fn(…)` bounds name types that only a call of them would pass on.
    fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}
    fn visit_parenthesized_generic_arguments(&mut self, _: &'ast syn::ParenthesizedGenericArguments) {}

    // The length of an array is a constant of this program, even if it borrows.
    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        visit::visit_type(self, &array.elem);
    }
}
