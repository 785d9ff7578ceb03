//! Code that several fuzz targets share, or a target and the program that writes its seeds.

pub mod store;
#[cfg(feature = "values")]
pub mod values;
