//! .

pub mod book;
