//! Empty: cargo wants a library to depend on; the programs are in `main.rs`.
#![no_std]
