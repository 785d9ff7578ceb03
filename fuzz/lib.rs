//! What several fuzz targets, or a target and the program that writes its seeds, have in common.

pub mod store;
#[cfg(feature = "values")]
pub mod values;
