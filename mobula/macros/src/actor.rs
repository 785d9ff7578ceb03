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
//! This file reads and checks the block; [`instances`] has its generic parameters, and [`glue`] the code that is added
//! to it.

mod glue;
mod instances;

use proc_macro2::{Ident, Span, TokenStream};
use quote::{ToTokens, quote};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, FnArg, GenericParam, ImplItem, ImplItemFn, ItemImpl, Receiver, ReceiverKind, ReturnType, Type,
};

use self::glue::{Class, glue};
use self::instances::{class_name, instantiate};
use crate::options::{self, ActorOptions, MethodOptions};
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
    /// The options of its calls, as calls of setters; empty: it has none.
    options: TokenStream,
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
                "`#[mobula::remote]` adds an item with this name to the type: choose another name",
            );
        } else if let Some(FnArg::Receiver(receiver)) = function.sig.inputs.first() {
            if options.caller_gone {
                if caller_gone.is_some() {
                    errors.push(&function.sig.ident, "an actor has at most one method `caller_gone`");
                }
                caller_gone = Some(function.sig.ident.clone());
            }
            if !options.local {
                check_receiver(receiver, &mut errors);
                check_name(&function.sig.ident, &mut errors);
                errors.take(options.check_retries(&actor_options));
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
            "`caller_gone` is only for actors with one call at a time: without `async` methods and `max_concurrency`",
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
            "write an actor's methods in an `impl` block of the type itself, not of a trait: a method there can \
             call the trait's",
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
            "each class is registered by its name: list the types of the parameters, as in \
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
            errors
                .push(export, "an exported name belongs to one class: give each instance a type of its own");
        }
    }
    match signature::bare(&block.self_ty) {
        Type::Path(path) if path.qself.is_none() => {}
        other => errors.push(other, "an actor is a type with a name of its own"),
    }
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
        options: signature::replace_self_in(options.setters(), actor),
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
