//! The options inside the parentheses of `#[remote(…)]`, on functions, `impl` blocks and methods.
//!
//! This module only reads them. `signature` decides whether a number fits the function below it.

use proc_macro2::{Group, Ident, Span, TokenStream};
use quote::{ToTokens, quote, quote_spanned};
use syn::meta::ParseNestedMeta;
use syn::parse::{Parse, ParseStream, Parser};
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{
    Attribute, Expr, ExprLit, GenericArgument, Lit, LitBool, LitInt, LitStr, Meta, Path, Result, Token,
    parse_quote,
};

/// The largest tuple whose elements can become objects of their own, as `mobula` implements them.
const NUM_RETURNS_MAX: usize = 8;

/// The options of a remote function.
#[derive(Default)]
pub(crate) struct FunctionOptions {
    pub(crate) num_returns: Option<NumReturns>,
    pub(crate) streaming: Streaming,
    pub(crate) max_retries: Option<Limit>,
    pub(crate) error_retries: ErrorRetries,
    pub(crate) timeout: Option<Expr>,
    pub(crate) deadline: Option<Expr>,
    pub(crate) max_calls: Option<Limit>,
    pub(crate) detached: bool,
    pub(crate) demand: Demand,
    /// Known not to be empty.
    pub(crate) name: Option<LitStr>,
    /// Known not to be empty.
    pub(crate) export: Option<LitStr>,
    pub(crate) mobula: Option<Mobula>,
}

/// The options of an actor.
#[derive(Default)]
pub(crate) struct ActorOptions {
    pub(crate) max_restarts: Option<Limit>,
    pub(crate) max_task_retries: Option<Limit>,
    pub(crate) max_pending_calls: Option<Limit>,
    /// An item of `mobula::Lifetime`.
    pub(crate) lifetime: Option<Ident>,
    pub(crate) max_concurrency: Option<Limit>,
    /// Where `max_concurrency` or `concurrency_groups` is written.
    pub(crate) concurrent: Option<Path>,
    pub(crate) concurrency_groups: Vec<(Ident, Limit)>,
    pub(crate) allow_out_of_order: bool,
    pub(crate) demand: Demand,
    /// The instances of the block's generic parameters, and the place of the option.
    pub(crate) instances: Option<(Path, Vec<Instance>)>,
    /// Known not to be empty.
    pub(crate) export: Option<LitStr>,
    pub(crate) mobula: Option<Mobula>,
}

/// The generic arguments of one instance of a block: `i32`, or `(i32, 4)` for two parameters.
pub(crate) struct Instance {
    /// All of it: the one argument.
    pub(crate) whole: TokenStream,
    /// The arguments in the parentheses, if there are parentheses.
    pub(crate) parts: Option<Vec<TokenStream>>,
}

impl Parse for Instance {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let parts = |input: ParseStream<'_>| -> Result<Vec<TokenStream>> {
            let content;
            syn::parenthesized!(content in input);
            let parts = Punctuated::<GenericArgument, Token![,]>::parse_terminated(&content)?;
            Ok(parts.iter().map(ToTokens::to_token_stream).collect())
        };
        if input.peek(syn::token::Paren) {
            let group: Group = input.fork().parse()?;
            return Ok(Self { parts: Some(parts(input)?), whole: group.to_token_stream() });
        }
        let argument: GenericArgument = input.parse()?;
        Ok(Self { whole: argument.to_token_stream(), parts: None })
    }
}

/// The options of a function that runs before the first call.
#[derive(Default)]
pub(crate) struct WorkerInitOptions {
    pub(crate) mobula: Option<Mobula>,
}

/// The options of one method of an actor.
#[derive(Default)]
pub(crate) struct MethodOptions {
    pub(crate) num_returns: Option<NumReturns>,
    pub(crate) streaming: Streaming,
    /// The name of its concurrency group.
    pub(crate) group: Option<LitStr>,
    pub(crate) max_task_retries: Option<Limit>,
    /// Where `max_task_retries` is written.
    retries_written: Option<Path>,
    pub(crate) error_retries: ErrorRetries,
    pub(crate) timeout: Option<Expr>,
    pub(crate) deadline: Option<Expr>,
    /// The handle does not have this method.
    pub(crate) local: bool,
    /// The actor's process calls this method when a caller is gone.
    pub(crate) caller_gone: bool,
}

/// Whether the results are a stream, and how many of its items are in flight at most.
#[derive(Default)]
pub(crate) struct Streaming {
    pub(crate) is_set: bool,
    max_in_flight: Option<Limit>,
    /// Where `max_in_flight` is written.
    written: Option<Path>,
}

impl Streaming {
    /// Reads an option, if it is one of these.
    fn read(&mut self, meta: &ParseNestedMeta) -> Option<Result<()>> {
        if meta.path.is_ident("streaming") {
            self.is_set = true;
            return Some(Ok(()));
        }
        if !meta.path.is_ident("max_in_flight") {
            return None;
        }
        self.written = Some(meta.path.clone());
        Some(set(meta, &mut self.max_in_flight, limit))
    }

    /// How many items are in flight at most, as an expression.
    pub(crate) fn in_flight_max(&self) -> TokenStream {
        match &self.max_in_flight {
            Some(limit) => limit.to_token_stream(),
            None => quote!(__mobula::__private::IN_FLIGHT_MAX),
        }
    }

    /// Refuses the number of items in flight where there is no stream.
    fn check(&self) -> Result<()> {
        match &self.written {
            Some(written) if !self.is_set => {
                Err(syn::Error::new_spanned(written, "`max_in_flight` is for streams: add `streaming`"))
            }
            _ => Ok(()),
        }
    }
}

/// Into how many objects a result is split, and where that is written.
pub(crate) struct NumReturns {
    /// 0 where the function decides: `dynamic`.
    pub(crate) count: usize,
    pub(crate) literal: TokenStream,
}

/// The demand of a call, and the environment of its process, as expressions of the user's crate.
#[derive(Default)]
pub(crate) struct Demand {
    num_cpus: Option<Expr>,
    pub(crate) num_gpus: Option<Expr>,
    memory: Option<Expr>,
    resources: Option<Expr>,
    env_vars: Option<Expr>,
    working_dir: Option<Expr>,
}

impl Demand {
    /// Reads an option, if it is one of these.
    fn read(&mut self, meta: &ParseNestedMeta) -> Option<Result<()>> {
        let name = meta.path.get_ident()?.to_string();
        Some(match name.as_str() {
            "num_cpus" => set(meta, &mut self.num_cpus, amount),
            "num_gpus" => set(meta, &mut self.num_gpus, amount),
            "memory" => set(meta, &mut self.memory, bytes),
            "resources" => set(meta, &mut self.resources, |meta| meta.value()?.parse()),
            "env_vars" => set(meta, &mut self.env_vars, |meta| meta.value()?.parse()),
            "working_dir" => set(meta, &mut self.working_dir, |meta| meta.value()?.parse()),
            _ => return None,
        })
    }

    /// Calls of setters, on a value that has them.
    pub(crate) fn setters(&self) -> TokenStream {
        let Self { num_cpus, num_gpus, memory, resources, env_vars, working_dir } = self;
        let num_cpus = num_cpus.as_ref().map(|amount| quote!(.num_cpus(#amount)));
        let num_gpus = num_gpus.as_ref().map(|amount| quote!(.num_gpus(#amount)));
        let memory = memory.as_ref().map(|bytes| quote!(.memory(#bytes)));
        let resources = resources.as_ref().map(|amounts| quote!(.resources(#amounts)));
        let env_vars = env_vars.as_ref().map(|variables| quote!(.env_vars(#variables)));
        let working_dir = working_dir.as_ref().map(|directory| quote!(.working_dir(#directory)));
        quote!(#num_cpus #num_gpus #memory #resources #env_vars #working_dir)
    }
}

/// Which errors are retried, and when.
#[derive(Default)]
pub(crate) struct ErrorRetries {
    retry_exceptions: Option<LitBool>,
    retry_if: Option<Expr>,
    retry_delay: Option<Expr>,
    /// Where the first of them is written.
    written: Option<Path>,
}

impl ErrorRetries {
    /// Reads an option, if it is one of these.
    fn read(&mut self, meta: &ParseNestedMeta) -> Option<Result<()>> {
        let name = meta.path.get_ident()?.to_string();
        let read = match name.as_str() {
            "retry_exceptions" => set(meta, &mut self.retry_exceptions, |meta| meta.value()?.parse()),
            "retry_if" => set(meta, &mut self.retry_if, |meta| meta.value()?.parse()),
            "retry_delay" => set(meta, &mut self.retry_delay, |meta| meta.value()?.parse()),
            _ => return None,
        };
        self.written.get_or_insert_with(|| meta.path.clone());
        Some(read)
    }

    /// Calls of setters, on a value that has them.
    pub(crate) fn setters(&self) -> TokenStream {
        let retry_exceptions = self.retry_exceptions.as_ref().map(|retry| quote!(.retry_exceptions(#retry)));
        let retry_if = self.retry_if.as_ref().map(|is_retried| quote!(.retry_if(#is_retried)));
        let retry_delay = self.retry_delay.as_ref().map(|delay| quote!(.retry_delay(#delay)));
        quote!(#retry_exceptions #retry_if #retry_delay)
    }

    /// The option that asks for retries.
    fn wanted(&self) -> Option<TokenStream> {
        match &self.retry_exceptions {
            Some(retry) => retry.value.then(|| retry.to_token_stream()),
            None => self.retry_if.as_ref().map(ToTokens::to_token_stream),
        }
    }
}

/// How often something is retried, as an expression of the crate `mobula`.
pub(crate) struct Limit(TokenStream);

impl ToTokens for Limit {
    fn to_tokens(&self, tokens: &mut TokenStream) {
        self.0.to_tokens(tokens);
    }
}

/// The path by which the user's crate knows the crate `mobula`.
pub(crate) struct Mobula(Path);

impl Default for Mobula {
    fn default() -> Self {
        Self(parse_quote!(::mobula))
    }
}

impl Mobula {
    /// Gives the crate the name under which the expansion refers to it, for the block that this begins.
    pub(crate) fn import(&self) -> TokenStream {
        let path = &self.0;
        // If there is no such crate, the error points at the option.
        let span = path.span().resolved_at(Span::call_site());
        quote_spanned!(span=> use #path as __mobula;)
    }

    /// A link to one of its items, for the documentation. There is none by way of `$crate`, which `rustdoc` does not
    /// know.
    pub(crate) fn link(&self, item: &str) -> String {
        let path = self.0.to_token_stream().to_string().replace(' ', "");
        if path.starts_with('$') {
            return format!("`{item}`");
        }
        format!("[`{item}`]({}::{item})", path.trim_start_matches("::"))
    }
}

impl FunctionOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = FunctionOptions::default();
        parse(tokens, |meta| {
            if meta.path.is_ident("num_returns") {
                set(&meta, &mut options.num_returns, num_returns)
            } else if meta.path.is_ident("max_retries") {
                set(&meta, &mut options.max_retries, limit)
            } else if let Some(read) = options.error_retries.read(&meta) {
                read
            } else if meta.path.is_ident("timeout") {
                set(&meta, &mut options.timeout, |meta| meta.value()?.parse())
            } else if meta.path.is_ident("deadline") {
                set(&meta, &mut options.deadline, |meta| meta.value()?.parse())
            } else if meta.path.is_ident("max_calls") {
                set(&meta, &mut options.max_calls, at_least_one)
            } else if meta.path.is_ident("detached") {
                options.detached = true;
                Ok(())
            } else if let Some(read) = options.demand.read(&meta) {
                read
            } else if let Some(read) = options.streaming.read(&meta) {
                read
            } else if meta.path.is_ident("name") {
                set(&meta, &mut options.name, name)
            } else if meta.path.is_ident("export") {
                set(&meta, &mut options.export, name)
            } else if meta.path.is_ident("crate") {
                set(&meta, &mut options.mobula, mobula)
            } else {
                let known = "a remote function takes `num_cpus`, `num_gpus`, `memory`, `resources`, `env_vars`, \
                             `working_dir`, `max_retries`, `retry_exceptions`, `retry_if`, `retry_delay`, `timeout`, \
                             `deadline`, `max_calls`, `detached`, `num_returns`, `streaming`, `max_in_flight`, \
                             `name`, `export` and `crate`";
                Err(unknown(&meta, known))
            }
        })?;
        options.streaming.check()?;
        Ok(options)
    }
}

impl WorkerInitOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = WorkerInitOptions::default();
        parse(tokens, |meta| {
            if meta.path.is_ident("crate") {
                set(&meta, &mut options.mobula, mobula)
            } else {
                Err(unknown(&meta, "`#[worker_init]` takes `crate`"))
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
                } else if let Some(read) = options.streaming.read(&meta) {
                    read
                } else if meta.path.is_ident("group") {
                    set(&meta, &mut options.group, |meta| meta.value()?.parse())
                } else if meta.path.is_ident("max_task_retries") {
                    options.retries_written = Some(meta.path.clone());
                    set(&meta, &mut options.max_task_retries, limit)
                } else if let Some(read) = options.error_retries.read(&meta) {
                    read
                } else if meta.path.is_ident("timeout") {
                    set(&meta, &mut options.timeout, |meta| meta.value()?.parse())
                } else if meta.path.is_ident("deadline") {
                    set(&meta, &mut options.deadline, |meta| meta.value()?.parse())
                } else if meta.path.is_ident("local") {
                    options.local = true;
                    Ok(())
                } else if meta.path.is_ident("caller_gone") {
                    (options.local, options.caller_gone) = (true, true);
                    Ok(())
                } else {
                    let known = "a method of an actor takes `num_returns`, `streaming`, `max_in_flight`, `group`, \
                                 `max_task_retries`, `retry_exceptions`, `retry_if`, `retry_delay`, `timeout`, \
                                 `deadline`, `local` and `caller_gone`";
                    Err(unknown(&meta, known))
                }
            })?;
        }
        options.streaming.check()?;
        if options.local {
            options.check_local()?;
        }
        Ok(options)
    }

    /// Refuses options of calls where there are none.
    fn check_local(&self) -> Result<()> {
        let of_calls = |what: &str| format!("{what} for calls, and the handle does not have this method");
        if let Some(limit) = self.timeout.as_ref().or(self.deadline.as_ref()) {
            return Err(syn::Error::new_spanned(limit, of_calls("a time limit is")));
        }
        if let Some(written) = self.retries_written.as_ref().or(self.error_retries.written.as_ref()) {
            return Err(syn::Error::new_spanned(written, of_calls("retries are")));
        }
        Ok(())
    }

    /// The options of the method's calls, as calls of setters; empty: it has none.
    pub(crate) fn setters(&self) -> TokenStream {
        let max_task_retries = self.max_task_retries.as_ref().map(|limit| quote!(.max_task_retries(#limit)));
        let error_retries = self.error_retries.setters();
        let timeout = self.timeout.as_ref().map(|limit| quote!(.timeout(#limit)));
        let deadline = self.deadline.as_ref().map(|limit| quote!(.deadline(#limit)));
        quote!(#max_task_retries #error_retries #timeout #deadline)
    }

    /// Refuses retries because of errors that never come, because no number of retries is given.
    pub(crate) fn check_retries(&self, of_actor: &ActorOptions) -> Result<()> {
        let has_number = self.max_task_retries.is_some() || of_actor.max_task_retries.is_some();
        match self.error_retries.wanted() {
            Some(wanted) if !has_number => Err(syn::Error::new_spanned(
                wanted,
                "errors are retried `max_task_retries` times, and neither this method nor the block has that option: \
                 add `max_task_retries = 3`, or another number",
            )),
            _ => Ok(()),
        }
    }
}

impl ActorOptions {
    pub(crate) fn parse(tokens: TokenStream) -> Result<Self> {
        let mut options = ActorOptions::default();
        parse(tokens, |meta| {
            if meta.path.is_ident("max_restarts") {
                set(&meta, &mut options.max_restarts, limit)
            } else if meta.path.is_ident("max_task_retries") {
                set(&meta, &mut options.max_task_retries, limit)
            } else if meta.path.is_ident("max_pending_calls") {
                set(&meta, &mut options.max_pending_calls, at_least_one)
            } else if meta.path.is_ident("lifetime") {
                set(&meta, &mut options.lifetime, lifetime)
            } else if meta.path.is_ident("max_concurrency") {
                options.concurrent = Some(meta.path.clone());
                set(&meta, &mut options.max_concurrency, at_least_one)
            } else if meta.path.is_ident("concurrency_groups") {
                options.concurrent = Some(meta.path.clone());
                options.read_groups(&meta)
            } else if meta.path.is_ident("allow_out_of_order") {
                options.allow_out_of_order = true;
                Ok(())
            } else if let Some(read) = options.demand.read(&meta) {
                read
            } else if meta.path.is_ident("instances") {
                set(&meta, &mut options.instances, instances)
            } else if meta.path.is_ident("export") {
                set(&meta, &mut options.export, name)
            } else if meta.path.is_ident("crate") {
                set(&meta, &mut options.mobula, mobula)
            } else {
                let known = "an actor takes `num_cpus`, `num_gpus`, `memory`, `resources`, `env_vars`, `working_dir`, \
                             `max_restarts`, `max_task_retries`, `max_pending_calls`, `lifetime`, `max_concurrency`, \
                             `concurrency_groups`, `allow_out_of_order`, `instances`, `export` and `crate`";
                Err(unknown(&meta, known))
            }
        })?;
        Ok(options)
    }

    /// `(io = 2, compute = 4)`
    fn read_groups(&mut self, meta: &ParseNestedMeta) -> Result<()> {
        meta.parse_nested_meta(|group| {
            let Some(name) = group.path.get_ident().cloned() else {
                return Err(syn::Error::new_spanned(
                    &group.path,
                    "the name of a concurrency group is one word",
                ));
            };
            if self.concurrency_groups.iter().any(|(other, _)| *other == name) {
                return Err(syn::Error::new_spanned(
                    name,
                    "there is a concurrency group of this name already",
                ));
            }
            let limit = at_least_one(&group)?;
            self.concurrency_groups.push((name, limit));
            Ok(())
        })
    }

    /// The number of a concurrency group, from 1 on.
    pub(crate) fn group(&self, name: &LitStr) -> Result<usize> {
        let number = self.concurrency_groups.iter().position(|(group, _)| *group == name.value());
        number.map(|number| number + 1).ok_or_else(|| {
            let message = format!(
                "the actor has no concurrency group of this name: write `concurrency_groups({} = 2)` in the attribute \
                 of the block",
                name.value()
            );
            syn::Error::new_spanned(name, message)
        })
    }
}

/// Whether the attribute is `#[remote]`, however it was imported.
pub(crate) fn is_remote(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|segment| segment.ident == "remote")
}

fn parse(tokens: TokenStream, each: impl FnMut(ParseNestedMeta) -> Result<()>) -> Result<()> {
    syn::meta::parser(each).parse2(tokens)
}

fn unknown(meta: &ParseNestedMeta, known: &str) -> syn::Error {
    let name = name_of(meta);
    syn::Error::new_spanned(&meta.path, format!("unknown option `{name}`: {known}"))
}

fn name_of(meta: &ParseNestedMeta) -> String {
    meta.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default()
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

/// `(i32, String)`
fn instances(meta: &ParseNestedMeta) -> Result<(Path, Vec<Instance>)> {
    let content;
    syn::parenthesized!(content in meta.input);
    let instances: Vec<_> =
        Punctuated::<Instance, Token![,]>::parse_terminated(&content)?.into_iter().collect();
    if instances.is_empty() {
        return Err(syn::Error::new_spanned(&meta.path, "name at least one type: `instances(i32, String)`"));
    }
    Ok((meta.path.clone(), instances))
}

fn num_returns(meta: &ParseNestedMeta) -> Result<NumReturns> {
    let value = meta.value()?;
    if value.fork().parse::<Ident>().is_ok_and(|ident| ident == "dynamic") {
        return Ok(NumReturns { count: 0, literal: value.parse::<Ident>()?.into_token_stream() });
    }
    let literal: LitInt = value.parse()?;
    match literal.base10_parse() {
        Ok(count @ 1..=NUM_RETURNS_MAX) => Ok(NumReturns { count, literal: literal.into_token_stream() }),
        _ => Err(syn::Error::new_spanned(
            literal,
            format!("`num_returns` is a number of objects, from 1 to {NUM_RETURNS_MAX}"),
        )),
    }
}

/// A number of CPUs or GPUs: a literal, or an expression that begins like a path.
fn amount(meta: &ParseNestedMeta) -> Result<Expr> {
    let value: Expr = meta.value()?.parse()?;
    match &value {
        Expr::Lit(ExprLit { lit: Lit::Int(_) | Lit::Float(_), .. }) | Expr::Path(_) => Ok(value),
        _ => {
            let name = name_of(meta);
            let message = format!("`{name}` is a number, 0 or more, such as 2 or 0.5, or a constant");
            Err(syn::Error::new_spanned(value, message))
        }
    }
}

fn bytes(meta: &ParseNestedMeta) -> Result<Expr> {
    let value: Expr = meta.value()?.parse()?;
    match &value {
        Expr::Lit(ExprLit { lit: Lit::Str(_) | Lit::Float(_) | Lit::Bool(_), .. }) | Expr::Unary(_) => {
            Err(syn::Error::new_spanned(value, "`memory` is a number of bytes, such as 1 << 30"))
        }
        _ => Ok(value),
    }
}

fn limit(meta: &ParseNestedMeta) -> Result<Limit> {
    limit_from(meta, 0)
}

fn limit_from(meta: &ParseNestedMeta, least: u32) -> Result<Limit> {
    let value: Expr = meta.value()?.parse()?;
    match &value {
        Expr::Path(path) if path.path.is_ident("unlimited") => Ok(Limit(quote!(__mobula::UNLIMITED))),
        Expr::Lit(ExprLit { lit: Lit::Int(number), .. })
            if number.base10_parse::<u32>().is_ok_and(|number| number >= least) =>
        {
            Ok(Limit(number.to_token_stream()))
        }
        _ => {
            let name = name_of(meta);
            Err(syn::Error::new_spanned(
                value,
                format!("`{name}` is a number, {least} or more, or `unlimited`"),
            ))
        }
    }
}

fn at_least_one(meta: &ParseNestedMeta) -> Result<Limit> {
    limit_from(meta, 1)
}

/// The name of an item of `mobula::Lifetime`.
fn lifetime(meta: &ParseNestedMeta) -> Result<Ident> {
    let written: Ident = meta.value()?.parse()?;
    let item = match written.to_string().as_str() {
        "scoped" => "Scoped",
        "detached" => "Detached",
        _ => return Err(syn::Error::new_spanned(written, "`lifetime` is `scoped` or `detached`")),
    };
    Ok(Ident::new(item, written.span()))
}

fn name(meta: &ParseNestedMeta) -> Result<LitStr> {
    let literal: LitStr = meta.value()?.parse()?;
    if literal.value().is_empty() {
        return Err(syn::Error::new_spanned(literal, "the name of a remote function is not empty"));
    }
    Ok(literal)
}

/// A path, as it is or in quotes: macros by example can only give the former, with `$crate` in it.
fn mobula(meta: &ParseNestedMeta) -> Result<Mobula> {
    let value = meta.value()?;
    if value.peek(LitStr) {
        let literal: LitStr = value.parse()?;
        let path = literal.parse_with(Path::parse_mod_style);
        let wrong = |_| {
            let message = "`crate` is the path of the crate `mobula`, such as \"facade::mobula\"";
            syn::Error::new_spanned(&literal, message)
        };
        return path.map(Mobula).map_err(wrong);
    }
    value.call(Path::parse_mod_style).map(Mobula)
}
