//! The expansion of `#[remote]` on a function.
//!
//! ```text
//! fn add(…) → the function itself              value namespace
//!             enum add {}                      type namespace: `add::remote`, `add::options`
//!             const _ = {
//!                 use ::mobula as __mobula     by the path that the option `crate` gives
//!                 fn __call                    decodes the arguments, calls `add`, hands back the outcome
//!                 static __FUNCTION            the registration: name and `__call`
//!                 struct __Options, __Several  calls that options were given to
//!                 impl add                     what the user calls
//!             }
//! ```

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::{FnArg, ItemFn};

use crate::options::{FunctionOptions, Mobula};
use crate::signature::{self, Arguments, Returns};
use crate::{Errors, with_error};

/// Expands the attribute with these options on this function.
pub(crate) fn expand(options: TokenStream, mut function: ItemFn) -> TokenStream {
    let mut errors = Errors::default();
    let mut options = errors.take(FunctionOptions::parse(options));
    if let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() {
        errors.push(
            receiver,
            "a remote function has no `self`: to call methods remotely, put `#[mobula::remote]` on the `impl` block",
        );
    }
    signature::check_qualifiers(&function.sig, "a remote function", &mut errors);
    let arguments = Arguments::read(&function.sig, &mut errors);
    arguments.refuse_reply("a function answers when it returns", &mut errors);
    let returns = if options.streaming.is_set {
        Returns::read_stream(&function.sig, options.num_returns.as_ref(), &mut errors)
    } else {
        Returns::read(&function.sig, options.num_returns.as_ref(), true, &mut errors)
    };
    signature::strip_argument_docs(&mut function.sig);
    if let Some(error) = errors.0 {
        return with_error(function.into_token_stream(), error);
    }

    let mobula = options.mobula.take().unwrap_or_default();
    let face = face(&function, &mobula, &arguments, &returns);
    let glue = glue(&function, &mobula, &options, &arguments, &returns);
    quote!(#function #face #glue)
}

/// The type that `add::remote` goes through.
fn face(function: &ItemFn, mobula: &Mobula, arguments: &Arguments, returns: &Returns) -> TokenStream {
    let (name, shared) = (&function.sig.ident, signature::shared(&function.attrs));
    let (vis, item) = (signature::repeated(&function.vis), signature::repeated(name));
    let deprecated = function.attrs.iter().filter(|attribute| attribute.path().is_ident("deprecated"));
    let docs = [
        format!("[`{name}`](fn@{name}) as a remote function."),
        String::new(),
        format!(
            "`{name}::remote({})` calls it in a worker process, and returns {} at once.",
            arguments.shown(),
            returns.shown(mobula)
        ),
    ];
    quote! {
        #(#shared)*
        #(#deprecated)*
        #(#[doc = #docs])*
        #vis enum #item {}
    }
}

/// Everything else: hidden in a constant without a name.
fn glue(
    function: &ItemFn,
    mobula: &Mobula,
    options: &FunctionOptions,
    arguments: &Arguments,
    returns: &Returns,
) -> TokenStream {
    let (name, shared) = (&function.sig.ident, signature::shared(&function.attrs));
    let (vis, item) = (signature::repeated(&function.vis), signature::repeated(name));
    let allow = signature::allow_deprecated(&function.attrs);
    let registration = registration(name, options, arguments, returns);
    let calls = calls(&vis, arguments, returns);
    let import = mobula.import();

    // Options that the caller leaves open come from the attribute.
    let max_retries = options.max_retries.as_ref().map(|retries| quote!(.max_retries(#retries)));
    let error_retries = options.error_retries.setters();
    let timeout = options.timeout.as_ref().map(|limit| quote!(.timeout(#limit)));
    let deadline = options.deadline.as_ref().map(|limit| quote!(.deadline(#limit)));
    let detached = options.detached.then(|| quote!(.detached(true)));
    let demand = options.demand.setters();
    let setters = quote!(#max_retries #error_retries #timeout #deadline #detached #demand);
    let given = if setters.is_empty() {
        quote!(options)
    } else {
        let defaults = quote!(__mobula::TaskOptions::new() #setters);
        quote!(__mobula::TaskOptions::or(options, #defaults))
    };
    let (parameters, names, reference) = (arguments.parameters(), arguments.names(), returns.reference());
    let summary = format!(
        "Calls [`{name}`](fn@{name}) in a worker process, and returns {} at once.",
        returns.shown(mobula)
    );
    let (argument_docs, option_summary) =
        (arguments.docs(), format!("Sets the options of one call of `{name}`."));
    let in_flight_max = options.streaming.in_flight_max();
    let in_flight = returns.is_stream().then(|| quote!(, #in_flight_max));
    let max_in_flight = returns.is_stream().then(|| {
        let docs = "Sets how many items of one stream are made, and not taken by the caller, at most.";
        quote! {
            #[doc = #docs]
            #vis fn max_in_flight(items: ::core::primitive::u32) -> __Options {
                Self::options(__mobula::TaskOptions::new()).max_in_flight(items)
            }
        }
    });
    let several = returns.list().map(|_| {
        let docs = [
            format!("Makes each element of the result of [`{name}`](fn@{name}) an object of its own."),
            String::new(),
            "The result must have exactly `count` elements, else each of the objects is an error.".to_owned(),
        ];
        quote! {
            #(#[doc = #docs])*
            #vis fn num_returns(count: ::core::primitive::usize) -> __Several {
                Self::options(__mobula::TaskOptions::new()).num_returns(count)
            }
        }
    });

    quote! {
        #(#shared)*
        #allow
        const _: () = {
            #import
            #registration
            #calls

            impl #item {
                #[doc = #summary]
                #[doc = ""]
                #[doc = "Each argument is a value, or a reference to one. A value is encoded before this returns."]
                #argument_docs
                #vis fn remote(#parameters) -> #reference {
                    Self::options(__mobula::TaskOptions::new()).remote(#names)
                }

                #[doc = #option_summary]
                #vis fn options(options: __mobula::TaskOptions) -> __Options {
                    __Options(#given #in_flight)
                }

                #several
                #max_in_flight
            }
        };
    }
}

/// How a worker finds the function, and calls it.
fn registration(
    name: &Ident,
    options: &FunctionOptions,
    arguments: &Arguments,
    returns: &Returns,
) -> TokenStream {
    let encoded = Ident::new("arguments", Span::mixed_site());
    let (decode, decoded) = (arguments.decode(&encoded, &TokenStream::new()), arguments.decoded());
    let item = signature::repeated(name);
    let outcome = returns.outcome(&encoded, &quote!(#item(#decoded)));
    let max_calls = match (&options.max_calls, &options.demand.num_gpus) {
        (Some(calls), _) => Some(quote!(.max_calls(#calls))),
        // The memory that a call leaves on its GPU goes with its process.
        (None, Some(gpus)) => {
            let gpus = signature::repeated(gpus);
            let calls = quote!(__mobula::__private::max_calls_with_gpus(#gpus as ::core::primitive::f64));
            Some(quote!(.max_calls(#calls)))
        }
        (None, None) => None,
    };
    let export = options.export.as_ref().map(|name| quote!(.export(#name)));
    let registered = match &options.name {
        Some(given) => given.to_token_stream(),
        None => {
            let plain = name.unraw().to_string();
            quote!(::core::concat!(::core::module_path!(), "::", #plain))
        }
    };
    quote! {
        fn __call(#encoded: &mut __mobula::__private::Arguments<'_, '_>) -> __mobula::__private::Outcome {
            #decode
            #outcome
        }

        #[__mobula::__private::linkme::distributed_slice(__mobula::__private::FUNCTIONS)]
        #[linkme(crate = __mobula::__private::linkme)]
        static __FUNCTION: __mobula::__private::Function =
            __mobula::__private::Function::new(#registered, __call) #max_calls #export;
    }
}

/// The types of a call that options were given to, but not yet its arguments.
fn calls(vis: &TokenStream, arguments: &Arguments, returns: &Returns) -> TokenStream {
    let list = Ident::new("arguments", Span::mixed_site());
    let (parameters, collect) = (arguments.parameters(), arguments.collect_all(&list));
    let call = returns.call(&quote!(__FUNCTION), &quote!(self.0, #list), &quote!(self.1));
    let reference = returns.reference();
    let struct_attributes = quote! {
        #[doc(hidden)]
        #[must_use = "nothing is called before `remote` is"]
    };

    let (num_returns, several) = match returns.list() {
        None => (None, None),
        Some(element) => {
            let num_returns = quote! {
                #vis fn num_returns(self, count: ::core::primitive::usize) -> __Several {
                    __Several(self.0, count)
                }
            };
            let several = quote! {
                #struct_attributes
                pub struct __Several(__mobula::TaskOptions, ::core::primitive::usize);

                impl __Several {
                    #vis fn remote(self, #parameters) -> ::std::vec::Vec<__mobula::ObjectRef<#element>> {
                        #collect
                        __FUNCTION.call_list::<#element>(self.0, #list, self.1)
                    }
                }
            };
            (Some(num_returns), Some(several))
        }
    };

    let (in_flight, max_in_flight) = if returns.is_stream() {
        let setter = quote! {
            #vis fn max_in_flight(self, items: ::core::primitive::u32) -> __Options {
                __Options(self.0, items)
            }
        };
        (Some(quote!(, ::core::primitive::u32)), Some(setter))
    } else {
        (None, None)
    };

    quote! {
        #struct_attributes
        pub struct __Options(__mobula::TaskOptions #in_flight);

        impl __Options {
            #vis fn remote(self, #parameters) -> #reference {
                #collect
                #call
            }

            #num_returns
            #max_in_flight
        }

        #several
    }
}
