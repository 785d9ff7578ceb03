//! The expansion of `#[remote]` on an `impl` block.
//!
//! ```text
//! impl Counter → the block itself
//!                const _ = {
//!                    use ::mobula as __mobula   by the path that the option `crate` gives
//!                    fn __new, __m0, __m1, …    decode the arguments, call `Counter`'s functions
//!                    static __CLASS             the registration: name, `__new` and the methods
//!                    enum __Method              the methods' numbers; `#[cfg]` can take methods away, so not literals
//!                    struct __Methods           what a handle dereferences to: the methods as the caller sees them
//!                    impl Actor for Counter     ties these to the type
//!                    impl Counter               `Counter::remote`, `Counter::options`
//!                }
//! ```
//!
//! A block with generic parameters is registered once for each of its instances: there is one such constant for each,
//! in which the parameters are aliases of what they stand for, as in `type T = i32;`.

use proc_macro2::{Group, Ident, Span, TokenStream, TokenTree};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, GenericParam, ImplItem, ImplItemFn, ItemImpl, Receiver, ReceiverKind, ReturnType, Type,
};

use crate::options::{self, ActorOptions, Instance, MethodOptions, Mobula};
use crate::signature::{self, Arguments, Returns};
use crate::{Errors, with_error};

/// `new`, as the expansion needs it.
struct Constructor {
    vis: TokenStream,
    arguments: Arguments,
    fallible: bool,
    /// Its return type, as written: an error about it should point there.
    output: Span,
}

/// A method of the handle.
struct Method {
    vis: TokenStream,
    name: Ident,
    arguments: Arguments,
    returns: Returns,
    /// How many items of a stream are in flight at most.
    in_flight_max: TokenStream,
    /// It takes `&mut self`.
    is_alone: bool,
    /// A future runs it.
    is_async: bool,
    /// Its concurrency group, from 1 on.
    group: Option<usize>,
    cfg: Vec<Attribute>,
    /// Its documentation, and the other attributes that its callers should see.
    attributes: Vec<Attribute>,
}

/// Expands the attribute with these options on this block.
pub(crate) fn expand(options: TokenStream, mut block: ItemImpl) -> TokenStream {
    let mut errors = Errors::default();
    let mut actor_options = errors.take(ActorOptions::parse(options));
    check_block(&block, &actor_options, &mut errors);

    let actor = signature::bare(&block.self_ty).clone();
    let mut constructor = None;
    let mut caller_gone = None;
    let mut methods = Vec::new();
    for item in &mut block.items {
        let ImplItem::Fn(function) = item else {
            refuse_options(item, &mut errors);
            continue;
        };
        let has_options = function.attrs.iter().find(|attribute| options::is_remote(attribute)).cloned();
        let options = errors.take(MethodOptions::take(&mut function.attrs));
        let has_group = options.group.clone();
        if function.sig.ident == "remote" || function.sig.ident == "options" {
            errors.push(
                &function.sig.ident,
                "this name is taken by what `#[mobula::remote]` adds to the type: choose another",
            );
        } else if let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() {
            if options.caller_gone {
                if caller_gone.is_some() {
                    errors.push(&function.sig.ident, "an actor has one method for callers that are gone");
                }
                caller_gone = Some(function.sig.ident.clone());
            }
            if !options.local {
                check_receiver(receiver, &mut errors);
                check_name(&function.sig.ident, &mut errors);
                let is_alone = is_exclusive(receiver);
                let group = has_group.as_ref().map(|name| errors.take(actor_options.group(name)));
                methods.push(Method { is_alone, group, ..method(function, options, &actor, &mut errors) });
            }
        } else {
            if let Some(attribute) = has_options {
                errors.push(attribute, "options are for methods: a function without `self` has none");
            }
            if function.sig.ident == "new" {
                constructor = Some(read_constructor(function, &actor, &mut errors));
            }
        }
    }
    let is_concurrent = actor_options.concurrent.is_some() || methods.iter().any(|method| method.is_async);
    if let (Some(method), true) = (&caller_gone, is_concurrent) {
        errors.push(
            method,
            "an actor hears of callers that are gone only if it has one call at a time: no `async` methods, and no \
             `max_concurrency`",
        );
    }
    if constructor.is_none() && block.trait_.is_none() {
        errors.push(
            &block.self_ty,
            "an actor needs a function `new` in this block, which its process starts with: `fn new(…) -> Self`",
        );
    }

    match (constructor, errors.0) {
        (_, Some(error)) => with_error(block.into_token_stream(), error),
        (None, None) => block.into_token_stream(),
        (Some(constructor), None) => {
            let mobula = actor_options.mobula.take().unwrap_or_default();
            let instances = match instantiate(&block, &actor_options) {
                Ok(instances) => instances,
                Err(error) => return with_error(block.into_token_stream(), error),
            };
            let glue = instances.iter().map(|instance| {
                let (name, aliases) = (class_name(&actor, instance), instance.aliases());
                let class = Class { actor: &actor, name: &name, aliases };
                glue(&block, &mobula, &class, &actor_options, &constructor, &methods, caller_gone.as_ref())
            });
            quote!(#block #(#glue)*)
        }
    }
}

fn check_block(block: &ItemImpl, options: &ActorOptions, errors: &mut Errors) {
    if let Some((path, _)) = &block.trait_ {
        errors.push(
            path,
            "an actor's methods stand in an `impl` block of the type itself, not of a trait: let a method there call \
             the trait's",
        );
    }
    if let Some(token) = &block.unsafety {
        errors.push(token, "an actor's `impl` block is not `unsafe`");
    }
    let lifetimes = block.generics.params.iter().filter(|param| matches!(param, GenericParam::Lifetime(_)));
    for lifetime in lifetimes {
        errors.push(lifetime, "an actor owns its state: its type has no lifetime parameters");
    }
    if !block.generics.params.is_empty() && options.instances.is_none() {
        errors.push(
            &block.generics.params,
            "each class is registered by its name: say what the parameters stand for, as in \
             `#[remote(instances(i32, String))]`",
        );
    }
    if let Some(clause) = &block.generics.where_clause
        && block.generics.params.is_empty()
    {
        errors.push(clause, "an actor has no `where` clause: it is registered once, for one set of types");
    }
    if let Some((path, instances)) = &options.instances {
        if block.generics.params.is_empty() {
            errors.push(path, "instances are for a block with generic parameters, as in `impl<T> Stack<T>`");
        }
        if let Some(export) = options.export.as_ref().filter(|_| instances.len() > 1) {
            errors.push(export, "an exported name is one class's: give each instance a type of its own");
        }
    }
    match signature::bare(&block.self_ty) {
        Type::Path(path) if path.qself.is_none() => {}
        other => errors.push(other, "an actor is a type with a name of its own"),
    }
}

/// What one class of a block has in place of its generic parameters.
struct Instantiated<'a>(Vec<(&'a GenericParam, TokenStream)>);

impl Instantiated<'_> {
    /// `type T = i32;`
    fn aliases(&self) -> TokenStream {
        let alias = |(param, argument): &(&GenericParam, TokenStream)| match param {
            GenericParam::Const(param) => {
                let (name, ty) = (&param.ident, &param.ty);
                quote!(const #name: #ty = #argument;)
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
fn instantiate<'a>(block: &'a ItemImpl, options: &ActorOptions) -> syn::Result<Vec<Instantiated<'a>>> {
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

/// An option on a constant or a type of the block means nothing.
fn refuse_options(item: &mut ImplItem, errors: &mut Errors) {
    let attributes = match item {
        ImplItem::Const(item) => &mut item.attrs,
        ImplItem::Type(item) => &mut item.attrs,
        ImplItem::Macro(item) => &mut item.attrs,
        _ => return,
    };
    for attribute in attributes.extract_if(.., |attribute| options::is_remote(attribute)) {
        errors.push(attribute, "options are for methods: this item stays local as it is");
    }
}

fn check_receiver(receiver: &Receiver, errors: &mut Errors) {
    let borrows = match &receiver.kind {
        ReceiverKind::Reference(..) => true,
        ReceiverKind::Typed(_, ty) => match signature::bare(ty) {
            Type::Reference(reference) => {
                matches!(signature::bare(&reference.elem), Type::Path(path) if path.path.is_ident("Self"))
            }
            _ => false,
        },
        _ => false,
    };
    if !borrows {
        errors.push(
            receiver,
            "an actor's methods take `&self` or `&mut self`: its state stays where it is; \
             `#[remote(local)]` keeps this one off the handle",
        );
    }
}

/// Whether a receiver that borrows is `&mut self`.
fn is_exclusive(receiver: &Receiver) -> bool {
    match &receiver.kind {
        ReceiverKind::Reference(_, _, mutability) => mutability.is_some(),
        ReceiverKind::Typed(_, ty) => {
            matches!(signature::bare(ty), Type::Reference(reference) if reference.mutability.is_some())
        }
        _ => true,
    }
}

/// Refuses a method that a handle's own method of the same name would hide: `handle.clone()` is a second handle.
///
/// A handle derefs to the actor's methods, so the compiler looks among the handle's own first: those of the traits of
/// the standard library and of serde that it implements. A method of a trait that is not in scope hides nothing, but
/// would begin to with one more `use`.
fn check_name(name: &Ident, errors: &mut Errors) {
    let (plain, own) = (name.unraw().to_string(), |(method, _): &&(&str, &str)| name.unraw() == method);
    if let Some((_, of)) = HANDLE_METHODS.iter().find(own) {
        errors.push(
            name,
            format!(
                "a handle has a method `{plain}` of its own, from `{of}`, and `handle.{plain}()` would mean that one: \
                 choose another name, or keep this method off the handle with `#[remote(local)]`"
            ),
        );
    }
}

/// The methods that every handle has, and the traits that they come from.
const HANDLE_METHODS: &[(&str, &str)] = &[
    ("borrow", "Borrow"),
    ("borrow_mut", "BorrowMut"),
    ("clone", "Clone"),
    ("clone_from", "Clone"),
    ("clone_into", "ToOwned"),
    ("deref", "Deref"),
    ("eq", "PartialEq"),
    ("fmt", "Debug"),
    ("hash", "Hash"),
    ("into", "Into"),
    ("ne", "PartialEq"),
    ("serialize", "Serialize"),
    ("to_owned", "ToOwned"),
    ("try_into", "TryInto"),
    ("type_id", "Any"),
];

fn method(function: &mut ImplItemFn, options: MethodOptions, actor: &Type, errors: &mut Errors) -> Method {
    let mut sig = function.sig.clone();
    signature::replace_self(&mut sig, actor);
    signature::check_method_qualifiers(&sig, errors);
    let arguments = Arguments::read(&sig, errors);
    let returns = if let Some(answer) = arguments.answer() {
        Returns::read_later(&sig, answer, &options, errors)
    } else if options.streaming.is_set {
        Returns::read_stream(&sig, options.num_returns.as_ref(), errors)
    } else {
        Returns::read(&sig, options.num_returns.as_ref(), false, errors)
    };
    signature::strip_argument_docs(&mut function.sig);
    let is_async = sig.asyncness.is_some() || returns.is_polled_stream();
    let seen = ["doc", "deprecated"];
    let attributes =
        function.attrs.iter().filter(|attribute| seen.iter().any(|name| attribute.path().is_ident(name)));
    Method {
        vis: signature::repeated(&function.vis),
        name: sig.ident,
        arguments,
        returns,
        in_flight_max: options.streaming.in_flight_max(),
        is_alone: false,
        is_async,
        group: None,
        cfg: signature::cfg(&function.attrs),
        attributes: attributes.cloned().collect(),
    }
}

fn read_constructor(function: &mut ImplItemFn, actor: &Type, errors: &mut Errors) -> Constructor {
    let mut sig = function.sig.clone();
    signature::replace_self(&mut sig, actor);
    signature::check_qualifiers(&sig, "an actor's `new`", errors);
    if let Some(cfg) = signature::cfg(&function.attrs).first() {
        errors.push(cfg, "an actor always has a `new`: put `#[cfg]` on the whole block, or inside the body");
    }
    let arguments = Arguments::read(&sig, errors);
    arguments.refuse_reply("an actor's `new` answers when it returns", errors);
    signature::strip_argument_docs(&mut function.sig);
    let (fallible, output) = match &sig.output {
        ReturnType::Type(_, ty) => (signature::result_of(ty).is_some(), ty.span()),
        ReturnType::Default => {
            errors.push(&sig.ident, "an actor's `new` returns `Self` or `Result<Self, E>`");
            (false, sig.ident.span())
        }
    };
    Constructor { vis: signature::repeated(&function.vis), arguments, fallible, output }
}

/// The type of an actor.
struct Class<'a> {
    /// As the block has it.
    actor: &'a Type,
    /// The name that it is registered by.
    name: &'a str,
    /// What its parameters stand for.
    aliases: TokenStream,
}

/// All that is added for one class, hidden in a constant without a name.
fn glue(
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
    let call = Ident::new("call", Span::mixed_site());
    let methods = methods.iter().enumerate().map(|(index, method)| {
        let Method { vis, name, arguments, returns, in_flight_max, cfg, attributes, .. } = method;
        let (number, parameters, reference) = (number(index), arguments.parameters(), returns.reference());
        let (attach, submit) = (arguments.attach(&call), returns.submit(&call, in_flight_max));
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
                let #call = __mobula::__private::RawActor::call(
                    &self.0,
                    __Method::#number as ::core::primitive::usize,
                );
                #attach
                #submit
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
    let create = Ident::new("create", Span::mixed_site());
    let (parameters, names, attach) = (arguments.parameters(), arguments.names(), arguments.attach(&create));
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
                let #create = __mobula::__private::Create::<#actor>::new(self.0, #defaults);
                #attach
                #create.submit()
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

/// The type's name as the user knows it: `Counter`, or `shapes::Counter` where the block names it so; `Stack<i32>`
/// where it has parameters.
fn class_name(actor: &Type, instance: &Instantiated<'_>) -> String {
    tidy(&with_arguments(actor.to_token_stream(), instance).to_string())
}

/// Puts what parameters stand for in their places.
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

/// The name of a method's number, and of the function that calls it.
fn number(index: usize) -> Ident {
    format_ident!("__m{}", index)
}
