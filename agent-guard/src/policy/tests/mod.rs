//! Tests of the whole pipeline.

mod cases;
