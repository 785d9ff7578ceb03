//! The code that is added to a block for one class: its registration, its handle, and the functions that make actors.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::{ImplItem, ItemImpl, Type};

use super::{Constructor, Method};
use crate::options::{ActorOptions, Mobula};
use crate::signature;

/// The type of an actor.
pub(super) struct Class<'a> {
    /// The type as it is written in the block.
    pub(super) actor: &'a Type,
    /// The name that it is registered by.
    pub(super) name: &'a str,
    /// The aliases of its parameters.
    pub(super) aliases: TokenStream,
}

/// The code that is added for one class, hidden in a constant without a name.
pub(super) fn glue(
    block: &ItemImpl,
    mobula: &Mobula,
    class: &Class<'_>,
    options: &ActorOptions,
    constructor: &Constructor,
    methods: &[Method],
    caller_gone: Option<&Ident>,
) -> TokenStream {
    let shared = signature::shared(&block.attrs);
    let functions = block.items.iter().filter_map(|item| match item {
        ImplItem::Fn(function) => Some(&function.attrs),
        _ => None,
    });
    let allow = signature::allow_deprecated(functions.flatten());
    let registration = registration(class, options, constructor, methods, caller_gone);
    let handle = handle(class, methods);
    let creation = creation(mobula, class, options, constructor);
    let (import, aliases) = (mobula.import(), &class.aliases);
    quote! {
        #(#shared)*
        #allow
        const _: () = {
            #import
            #aliases
            #registration
            #handle
            #creation
        };
    }
}

/// How a worker finds the type, makes it and calls its methods.
fn registration(
    class: &Class<'_>,
    options: &ActorOptions,
    constructor: &Constructor,
    methods: &[Method],
    caller_gone: Option<&Ident>,
) -> TokenStream {
    let encoded = Ident::new("arguments", Span::mixed_site());
    let is_concurrent = options.concurrent.is_some() || methods.iter().any(|method| method.is_async);

    let Class { actor, name: class, .. } = class;
    let decode = constructor.arguments.decode(&encoded, &TokenStream::new());
    let decoded = constructor.arguments.decoded();
    // An error about the return type then points there.
    let span = constructor.output.resolved_at(Span::call_site());
    let made = quote_spanned!(span=> <#actor>::new(#decoded));
    let suffix = if is_concurrent { "_shared" } else { "" };
    let constructed = if constructor.fallible {
        let constructed = format_ident!("constructed{suffix}_fallible", span = span);
        let as_error = signature::as_error();
        quote_spanned!(span=> __mobula::__private::#constructed::<#actor, _>(#made, #as_error))
    } else {
        let constructed = format_ident!("constructed{suffix}", span = span);
        quote_spanned!(span=> __mobula::__private::#constructed::<#actor>(#made))
    };

    let mut calls = TokenStream::new();
    let mut entries = TokenStream::new();
    let mut numbers = TokenStream::new();
    for (index, method) in methods.iter().enumerate() {
        let (number, cfg, shown) = (number(index), &method.cfg, method.name.unraw().to_string());
        let callee = quote!(::core::concat!(::core::module_path!(), "::", #class, "::", #shown));
        let kind = Kind::of(method, is_concurrent);
        let call = kind.call(actor, method, &number, &encoded, &callee);
        calls.extend(quote!(#(#cfg)* #call));
        let (kind, group) = (Ident::new(kind.name(), Span::call_site()), method.group);
        let group = group.map(|group| quote!(.in_group(#group)));
        entries.extend(quote! {
            #(#cfg)*
            __mobula::__private::Method::new(#shown, __mobula::__private::Calling::#kind(#number)) #group,
        });
        numbers.extend(quote!(#(#cfg)* #number,));
    }

    let export = options.export.as_ref().map(|name| quote!(.export(#name)));
    let (construction, make, concurrency) = if is_concurrent {
        let max = match &options.max_concurrency {
            Some(max) => quote!(::core::option::Option::Some(#max)),
            None => quote!(::core::option::Option::None),
        };
        let groups = options.concurrency_groups.iter().map(|(name, limit)| {
            let name = name.unraw().to_string();
            quote!((#name, #limit))
        });
        let concurrency = quote!(__mobula::__private::Concurrency { max: #max, groups: &[#(#groups),*] },);
        (quote!(SharedConstruction), quote!(concurrent), concurrency)
    } else {
        (quote!(Construction), quote!(new), TokenStream::new())
    };
    let with_replies =
        methods.iter().any(|method| method.arguments.answer().is_some()).then(|| quote!(.with_replies()));
    let with_caller_gone = caller_gone.map(|_| quote!(.with_caller_gone(__caller_gone)));
    let caller_gone = caller_gone.map(|method| {
        quote! {
            fn __caller_gone(actor: &mut dyn ::core::any::Any, caller: __mobula::Caller) {
                if let ::core::result::Result::Ok(actor) = __mobula::__private::downcast::<#actor>(actor) {
                    <#actor>::#method(actor, caller);
                }
            }
        }
    });
    let out_of_order = options.allow_out_of_order.then(|| quote!(.allow_out_of_order()));
    quote! {
        fn __new(#encoded: &mut __mobula::__private::Arguments<'_, '_>) -> __mobula::__private::#construction {
            #decode
            #constructed
        }

        #calls
        #caller_gone

        enum __Method { #numbers }

        #[__mobula::__private::linkme::distributed_slice(__mobula::__private::CLASSES)]
        #[linkme(crate = __mobula::__private::linkme)]
        static __CLASS: __mobula::__private::Class = __mobula::__private::Class::#make(
            ::core::concat!(::core::module_path!(), "::", #class),
            __new,
            &[#entries],
            #concurrency
        )#with_replies #with_caller_gone #out_of_order #export;
    }
}

/// How a worker calls a method: the variants of `mobula`'s `Calling`.
#[derive(Clone, Copy)]
enum Kind {
    OneAtATime,
    Beside,
    Alone,
    FutureBeside,
    FutureAlone,
}

impl Kind {
    fn of(method: &Method, is_concurrent: bool) -> Self {
        match (is_concurrent, method.is_async, method.is_alone) {
            (false, ..) => Self::OneAtATime,
            (true, false, false) => Self::Beside,
            (true, false, true) => Self::Alone,
            (true, true, false) => Self::FutureBeside,
            (true, true, true) => Self::FutureAlone,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::OneAtATime => "OneAtATime",
            Self::Beside => "Beside",
            Self::Alone => "Alone",
            Self::FutureBeside => "FutureBeside",
            Self::FutureAlone => "FutureAlone",
        }
    }

    /// The function that decodes the arguments, calls the method, and hands over what it returns.
    fn call(
        self,
        actor: &Type,
        method: &Method,
        number: &Ident,
        encoded: &Ident,
        callee: &TokenStream,
    ) -> TokenStream {
        let Method { name, arguments, returns, .. } = method;
        let (state, item) = (Ident::new("actor", Span::mixed_site()), signature::repeated(name));
        let (decode, decoded) = (arguments.decode(encoded, callee), arguments.decoded());
        let called = quote!(<#actor>::#item(#state, #decoded));
        let (taken, downcast) = match self {
            Self::OneAtATime => (quote!(&mut dyn ::core::any::Any), quote!(downcast)),
            Self::Beside => (quote!(&__mobula::__private::SharedState), quote!(downcast_ref)),
            Self::Alone => (quote!(&mut __mobula::__private::SharedState), quote!(downcast_mut)),
            Self::FutureBeside => (quote!(&'a __mobula::__private::SharedState), quote!(downcast_ref)),
            Self::FutureAlone => (quote!(&'a mut __mobula::__private::SharedState), quote!(downcast_mut)),
        };
        let downcast = quote!(let #state = __mobula::__private::#downcast::<#actor>(#state)?;);
        match self {
            Self::OneAtATime | Self::Beside | Self::Alone => {
                let outcome = returns.outcome(encoded, &called);
                quote! {
                    fn #number(
                        #state: #taken,
                        #encoded: &mut __mobula::__private::Arguments<'_, '_>,
                    ) -> __mobula::__private::Outcome {
                        #downcast
                        #decode
                        #outcome
                    }
                }
            }
            Self::FutureBeside | Self::FutureAlone => {
                let called = if returns.is_polled_stream() { called } else { quote!(#called.await) };
                let outcome = returns.outcome(encoded, &called);
                quote! {
                    fn #number<'a>(
                        #state: #taken,
                        #encoded: &'a mut __mobula::__private::Arguments<'_, '_>,
                    ) -> __mobula::__private::BoxedOutcome<'a> {
                        ::std::boxed::Box::pin(async move {
                            #downcast
                            #decode
                            #outcome
                        })
                    }
                }
            }
        }
    }
}

/// The methods as the callers of a handle see them.
fn handle(class: &Class<'_>, methods: &[Method]) -> TokenStream {
    let Class { actor, name: class, .. } = class;
    let list = Ident::new("arguments", Span::mixed_site());
    let methods = methods.iter().enumerate().map(|(index, method)| {
        let Method { vis, name, arguments, returns, in_flight_max, options, cfg, attributes, .. } = method;
        let (number, parameters, reference) = (number(index), arguments.parameters(), returns.reference());
        let method = quote!(__Method::#number as ::core::primitive::usize);
        let collect = arguments.collect_all(&list);
        // Options that the caller leaves open come from the attribute.
        let callee = match options.is_empty() {
            true => quote!(self.0),
            false => quote!(self.0.or(__mobula::MethodOptions::new() #options)),
        };
        let call = returns.call(&callee, &quote!(#method, #list), in_flight_max);
        let item = signature::repeated(name);
        let summary = format!("Calls `{class}::{}` in the actor's process.", name.unraw());
        let documented = attributes.iter().any(|attribute| attribute.path().is_ident("doc"));
        let summary = (!documented).then(|| quote!(#[doc = #summary]));
        let argument_docs = arguments.docs();
        quote! {
            #(#cfg)*
            #(#attributes)*
            #summary
            #argument_docs
            #vis fn #item(&self, #parameters) -> #reference {
                #collect
                #call
            }
        }
    });
    quote! {
        #[doc(hidden)]
        #[derive(::core::clone::Clone)]
        pub struct __Methods(__mobula::__private::RawActor);

        impl __Methods {
            #(#methods)*
        }

        impl __mobula::Actor for #actor {
            type Methods = __Methods;

            fn class() -> &'static __mobula::__private::Class {
                &__CLASS
            }

            fn methods(raw: __mobula::__private::RawActor) -> __Methods {
                __Methods(raw)
            }

            fn raw(methods: &__Methods) -> &__mobula::__private::RawActor {
                &methods.0
            }
        }
    }
}

/// `Counter::remote` and `Counter::options`.
fn creation(
    mobula: &Mobula,
    class: &Class<'_>,
    options: &ActorOptions,
    constructor: &Constructor,
) -> TokenStream {
    // Options that the caller leaves open come from the attribute.
    let max_restarts = options.max_restarts.as_ref().map(|limit| quote!(.max_restarts(#limit)));
    let max_task_retries = options.max_task_retries.as_ref().map(|limit| quote!(.max_task_retries(#limit)));
    let max_pending_calls =
        options.max_pending_calls.as_ref().map(|limit| quote!(.max_pending_calls(#limit)));
    let lifetime = options.lifetime.as_ref().map(|item| quote!(.lifetime(__mobula::Lifetime::#item)));
    let demand = options.demand.setters();
    let defaults = quote! {
        __mobula::ActorOptions::new() #max_restarts #max_task_retries #max_pending_calls #lifetime #demand
    };
    let Constructor { vis, arguments, .. } = constructor;
    let Class { actor, name: class, .. } = class;
    let [merged, list] = ["options", "arguments"].map(|name| Ident::new(name, Span::mixed_site()));
    let made = quote!(__mobula::__private::constructor_arguments::<#actor>(&#merged));
    let (parameters, names, collect) =
        (arguments.parameters(), arguments.names(), arguments.collect(&list, &made));
    let argument_docs = arguments.docs();
    let summary = format!(
        "Starts a `{class}` in a process of its own, and returns an {} to it at once.",
        mobula.link("ActorHandle")
    );
    let option_summary = format!("Sets the options that a `{class}` is started with.");
    quote! {
        #[doc(hidden)]
        #[must_use = "no actor is started before `remote` is called"]
        pub struct __Options(__mobula::ActorOptions);

        impl __Options {
            #vis fn remote(self, #parameters) -> __mobula::ActorHandle<#actor> {
                let #merged = __mobula::ActorOptions::or(self.0, #defaults);
                #collect
                __mobula::__private::create::<#actor>(&#merged, #list)
            }
        }

        impl #actor {
            #[doc = #summary]
            #[doc = ""]
            #[doc = "The arguments are those of `new`, each a value or a reference to one. The actor is gone when the"]
            #[doc = "last handle to it is."]
            #argument_docs
            #vis fn remote(#parameters) -> __mobula::ActorHandle<#actor> {
                Self::options(__mobula::ActorOptions::new()).remote(#names)
            }

            #[doc = #option_summary]
            #vis fn options(options: __mobula::ActorOptions) -> __Options {
                __Options(options)
            }
        }
    }
}

/// The name of a method's number, and of the function that calls it.
fn number(index: usize) -> Ident {
    format_ident!("__m{}", index)
}
