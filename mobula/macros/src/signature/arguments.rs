//! The arguments of a remote call: their types, and the code that sends and reads them.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::{Attribute, Expr, FnArg, Lit, Meta, Pat, Type};

use super::tokens::cfg;
use super::types::{check_owned, generic_argument};
use crate::Errors;

/// The arguments of a remote call, `self` left out.
pub(crate) struct Arguments {
    arguments: Vec<Argument>,
    reply: Option<ReplyArgument>,
}

/// The argument by which a method answers later: a `Reply<T>`. The caller does not pass it.
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
    /// `#[cfg(…)]` of the argument. All code that is generated for the argument has them.
    cfg: Vec<Attribute>,
    docs: Vec<String>,
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

    /// Statements that add the parameters to the list that `list` makes, in the variable `arguments`.
    pub(crate) fn collect(&self, arguments: &Ident, list: &TokenStream) -> TokenStream {
        let each = self.each(|Argument { name, ty, cfg, .. }| {
            quote!(#(#cfg)* <#ty as __mobula::__private::Portable>::give(&mut #arguments, #name);)
        });
        quote!(let mut #arguments = #list; #each)
    }

    /// Statements that add the parameters to a list that is empty at first.
    pub(crate) fn collect_all(&self, arguments: &Ident) -> TokenStream {
        self.collect(arguments, &quote!(__mobula::__private::ArgumentList::default()))
    }

    /// Statements that decode the arguments, in the called process, from the variable `arguments`. `callee` is an
    /// expression for the name in errors of a reply.
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

    /// The arguments of a call, for the documentation: `a, b`.
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

/// The name of an argument, if its pattern has one, without the leading underscores of an unused argument.
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
