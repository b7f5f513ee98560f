//! The README keeps its word: its tour runs as it stands, and it names every field of the config.
//!
//! Needs root and a container engine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::path::Path;

use support::Check;
use support::cluster::{Home, KUP, run};
use tokio::process::Command;

const README: &str = include_str!("../README.md");
/// What the tour calls its cluster, and what this test calls it instead.
const NAMES: (&str, &str) = ("tour", "kup-test-tour");

/// A command and the lines that its output must have, in which `...` stands for anything.
struct Stop {
    command: String,
    expected: Vec<String>,
}

fn tour() -> Vec<Stop> {
    let (_, rest) = README.split_once("<!-- tour -->").expect("the README has a tour");
    let (section, _) = rest.split_once("<!-- end of tour -->").expect("the tour ends");
    let section = section.replace(NAMES.0, NAMES.1);
    let mut stops: Vec<Stop> = Vec::new();
    for block in section.split("```console\n").skip(1) {
        let (lines, _) = block.split_once("```").expect("a block ends");
        for line in lines.lines() {
            match line.strip_prefix("$ ") {
                Some(command) => stops.push(Stop { command: command.to_owned(), expected: Vec::new() }),
                None => stops.last_mut().expect("a block begins with a command").expected.push(line.to_owned()),
            }
        }
    }
    stops
}

/// Whether a line is as expected; `...` stands for anything.
fn fits(expected: &str, line: &str) -> bool {
    let mut parts = expected.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    for (i, part) in parts.iter().enumerate() {
        if i + 1 == parts.len() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

#[tokio::test]
async fn the_tour_runs_as_it_stands() -> Check {
    let home = Home::new(NAMES.1).await?;
    let kup = Path::new(KUP).parent().unwrap();
    let path = format!("{}:{}", kup.display(), std::env::var("PATH").unwrap_or_default());
    let stops = tour();
    assert!(stops.len() > 10, "the tour was found");
    for stop in stops {
        let as_user = home.command(&[]);
        let mut command = Command::new("bash");
        for (key, value) in as_user.as_std().get_envs() {
            command.env(key, value.unwrap_or_default());
        }
        let output = run(command.arg("-c").arg(&stop.command).env("PATH", &path).current_dir(home.path()), None).await?;
        let said = format!("$ {}\n{}{}", stop.command, output.stdout, output.stderr);
        assert_eq!(output.code, Some(0), "{said}");
        for expected in &stop.expected {
            assert!(
                output.stdout.lines().chain(output.stderr.lines()).any(|l| fits(expected, l)),
                "no line like `{expected}`:\n{said}"
            );
        }
    }
    Ok(())
}

#[test]
fn wildcards_stand_for_anything() {
    assert!(fits("a...c", "abc") && fits("...", "") && fits("...b...", "abc") && fits("active", "active"));
    assert!(!fits("a...c", "abd") && !fits("active", "inactive") && !fits("...x...", "abc"));
}

#[test]
fn every_field_of_the_config_is_named() {
    let loaded = kup::cluster::load(kup::cluster::Source { file: None, ..Default::default() }).unwrap();
    let fields = loaded.fields().unwrap();
    assert!(fields.len() > 10);
    for (field, ..) in fields {
        assert!(README.contains(&format!("`{field}`")), "the README does not name `{field}`");
    }
}
