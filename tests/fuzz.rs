//! Hostile input: whatever a config, a kubeconfig, a bundle's manifest or an answer of an API holds, kup says what is wrong with it, or
//! takes it for exactly what it says. It never panics, never goes on for ever, and gives no shell a word that it would run.
//!
//! Real inputs are changed at random. How many cases a run tries is fixed; `KUP_FUZZ_SECONDS=600` goes on for so long, in each part. What is
//! tried follows from the commit, or from `KUP_TEST_SEED`, which every part says. What was wrong once is tried in each run.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr, missing_docs, unreachable_pub)]

mod support;

#[path = "fuzz/answers.rs"]
mod answers;
#[path = "fuzz/aws.rs"]
mod aws;
#[path = "fuzz/bundle.rs"]
mod bundle;
#[path = "fuzz/commands.rs"]
mod commands;
#[path = "fuzz/config.rs"]
mod config;
#[path = "fuzz/engine.rs"]
mod engine;
#[path = "fuzz/kubeconfig.rs"]
mod kubeconfig;
#[path = "fuzz/machines.rs"]
mod machines;
#[path = "fuzz/mutation.rs"]
mod mutation;
#[path = "fuzz/render.rs"]
mod render;
#[path = "fuzz/replies.rs"]
mod replies;
#[path = "fuzz/scripts.rs"]
mod scripts;
#[path = "aws/wire.rs"]
#[allow(dead_code, reason = "of the line to an emulator only the names of calls are used")]
mod wire;
