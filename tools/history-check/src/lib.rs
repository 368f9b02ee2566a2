//! Proves that what several processes did on one store was strictly serializable.
//!
//! Children work on a store and write down what they did ([`history`], as [`text`]). Two judges read that: the
//! witness [`checker`], which knows in which order the transactions claim to stand and performs
//! them again, queries included; and a [`black_box`] that trusts no claim and looks for cycles. Only
//! the public face of `happystore` is used.
#![allow(
    clippy::disallowed_methods,
    reason = "a program of its own has clocks, files and threads; the library's are behind its vfs"
)]

pub mod black_box;
pub mod checker;
pub mod history;
pub mod text;
