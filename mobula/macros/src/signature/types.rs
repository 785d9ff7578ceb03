//! Types as they are written: the type in a `Result`, a `Vec` or a stream, and borrowed parts.

use syn::visit::{self, Visit};
use syn::{GenericArgument, PathArguments, Type};

use crate::Errors;

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
pub(super) fn list_of(ty: &Type) -> Option<Type> {
    generic_argument(ty, "Vec")
}

/// The `T` of a type that is written as an `impl Iterator<Item = T>` or a `Box<dyn Iterator<Item = T>>`.
pub(super) fn item_of(ty: &Type) -> Option<Type> {
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
pub(super) fn is_polled(ty: &Type) -> bool {
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
pub(super) fn pointee(ty: &Type) -> Option<Type> {
    generic_argument(ty, "Box").or_else(|| generic_argument(ty, "Pin"))
}

/// The first generic argument of a path that ends in `name`.
pub(super) fn generic_argument(ty: &Type, name: &str) -> Option<Type> {
    let Type::Path(path) = bare(ty) else { return None };
    let last = path.path.segments.last().filter(|segment| segment.ident == name)?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty.clone()),
        _ => None,
    })
}

/// Refuses all parts of a type that borrow from the caller, or do not name a type.
pub(super) fn check_owned(ty: &Type, instead: &str, errors: &mut Errors) {
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
