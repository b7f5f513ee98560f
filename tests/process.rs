//! How kup behaves as a process: flags, signals, questions, closed pipes, what is left on a terminal.
//!
//! Tests that need a process of its own start this very test program again with one of the ignored `act_*` tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::Duration;

use kup::cli::{Cli, Color, Conduct, Global, Output, Ui, drive, drive::Surroundings};
use kup::error::{Error, Kind, Result};
use kup::report::display;
use kup::report::plain::Detail;

// ---- the command line ----

#[test]
fn the_command_line_is_consistent() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn help_reads_well() {
    let out = Command::new(env!("CARGO_BIN_EXE_kup")).arg("--help").output().unwrap();
    assert!(out.status.success());
    insta::assert_snapshot!("help", String::from_utf8(out.stdout).unwrap());
}

#[test]
fn wrong_flags_are_usage_errors() {
    let out = Command::new(env!("CARGO_BIN_EXE_kup")).arg("--no-such-flag").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(out.stdout.is_empty());
    assert!(String::from_utf8(out.stderr).unwrap().contains("--no-such-flag"));
}

#[test]
fn the_display_follows_flags_and_surroundings() {
    let terminal = Surroundings { out_terminal: true, err_terminal: true, cursor: true, no_color: false };
    let choose = |around: Surroundings, global: &Global, stream| around.display(global, Conduct { stream, interrupted: None });
    let text = Global::default();
    let coloured = |colour| display::Kind::Terminal { colour, verbose: false };
    assert_eq!(choose(terminal, &text, true), coloured(true));
    assert_eq!(choose(Surroundings { no_color: true, ..terminal }, &text, true), coloured(false));
    assert_eq!(
        choose(Surroundings { no_color: true, ..terminal }, &Global { color: Color::Always, ..Global::default() }, true),
        coloured(true)
    );
    assert_eq!(choose(terminal, &Global { color: Color::Never, ..Global::default() }, true), coloured(false));
    let steps = display::Kind::Plain(Detail::Steps);
    assert_eq!(choose(Surroundings { cursor: false, ..terminal }, &text, true), steps);
    assert_eq!(choose(Surroundings { err_terminal: false, ..terminal }, &text, true), steps);
    let json = Global { output: Output::Json, ..Global::default() };
    assert_eq!(choose(terminal, &json, true), display::Kind::Json);
    assert_eq!(choose(terminal, &json, false), coloured(true));
    assert_eq!(choose(terminal, &Global { quiet: true, ..json }, true), display::Kind::Plain(Detail::Quiet));
}

// ---- processes ----

/// Starts one of the `act_*` tests below as a process, its flags in the environment.
fn act(name: &str, flags: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([name, "--exact", "--ignored", "--nocapture", "--test-threads=1"]);
    command.env("ACT", flags).env_remove("NO_COLOR").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn flags() -> Global {
    use clap::Parser;
    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        global: Global,
    }
    // Without the variable this is someone running ignored tests by hand: they get the defaults.
    let words = std::env::var("ACT").unwrap_or_default();
    Flags::parse_from(std::iter::once("act").chain(words.split_whitespace())).global
}

const CONDUCT: Conduct = Conduct { stream: true, interrupted: Some("`kup up` resumes, `kup down` removes") };

/// Ends the process as `main` would.
fn play(work: impl AsyncFnOnce(&Ui) -> Result<()>) -> ! {
    let code = drive(&flags(), CONDUCT, work);
    // ExitCode can't be read, only returned; a test can't return it. SUCCESS and others are told apart by their debug form.
    let code = (0..=255u8).find(|c| format!("{:?}", std::process::ExitCode::from(*c)) == format!("{code:?}")).unwrap();
    std::process::exit(code.into())
}

struct Dropped;
impl Drop for Dropped {
    fn drop(&mut self) {
        eprintln!("work was dropped");
    }
}

#[test]
#[ignore = "a part of other tests"]
fn act_hang() {
    play(async |ui| {
        let _dropped = Dropped;
        let step = ui.report.step("etcd");
        let _machine = step.child("kubernetes-master-1");
        ui.print("hanging");
        // Longer than any test lasts; what ends it is the signal.
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok(())
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_block() {
    play(async |ui| {
        ui.print("blocking");
        std::thread::sleep(Duration::from_secs(60));
        Ok(())
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_story() {
    play(async |ui| {
        let machines = ui.report.step("machines");
        for i in 0..25 {
            machines.child(format!("kubernetes-minion-{i}")).done();
        }
        let open = machines.child("kubernetes-minion-25");
        open.waiting("ssh answers");
        let quick = ui.report.step("network");
        // Two ticks of the display: lines have been drawn and must vanish again.
        tokio::time::sleep(Duration::from_millis(250)).await;
        ui.print("data");
        quick.done_with("172.29.0.0/24");
        open.done();
        machines.done();
        if ui.json {
            ui.result(&serde_json::json!({ "nodes": 5 }))?;
        }
        let failing = ui.report.step("etcd");
        let error = Error::new("etcd did not start").kind(Kind::Unhealthy).hint("look at it");
        failing.fail(&error);
        Err(error)
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_leak() {
    play(async |ui| {
        let step = ui.report.step("network");
        // A thread that can't be cancelled keeps its span, and with it the report, beyond the command's end.
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(60));
            step.done();
        });
        Ok(())
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_confirm() {
    play(async |ui| {
        ui.print(ui.confirm("Remove it?", false).await?);
        Ok(())
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_print() {
    play(async |ui| {
        for i in 0..100_000 {
            ui.print(format_args!("line {i}"));
            if ui.reader_gone() {
                return Err(Error::new("reader gone").kind(Kind::Unhealthy));
            }
        }
        Ok(())
    })
}

/// Reads the child's output up to a line that ends like this: the test harness prints the test's name before it.
fn until(child: &mut Child, line: &str) -> BufReader<ChildStdout> {
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut seen = String::new();
    while !seen.trim_end().ends_with(line) {
        assert!(out.read_line(&mut seen).unwrap() > 0, "ended after {seen:?}");
    }
    out
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

fn end(mut child: Child) -> (ExitStatus, String) {
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    (child.wait().unwrap(), err)
}

#[test]
fn the_first_signal_drops_the_work_and_says_how_to_go_on() {
    for kind in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut child = act("act_hang", "").spawn().unwrap();
        let _out = until(&mut child, "hanging");
        signal(&child, kind);
        let (status, err) = end(child);
        assert_eq!(status.code(), Some(130), "{err}");
        assert!(err.contains("work was dropped"), "{err}");
        assert!(err.contains("stopped etcd ("), "{err}");
        assert!(err.ends_with("interrupted; `kup up` resumes, `kup down` removes\n"), "{err}");
    }
}

#[test]
fn the_second_signal_ends_even_work_that_blocks() {
    let mut child = act("act_block", "").spawn().unwrap();
    let _out = until(&mut child, "blocking");
    // Signals of one kind that arrive together are one; so send until it is gone.
    while child.try_wait().unwrap().is_none() {
        signal(&child, rustix::process::Signal::INT);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(end(child).0.code(), Some(130));
}

#[test]
fn work_that_goes_on_in_the_background_does_not_hold_the_program() {
    let (status, err) = end(act("act_leak", "").spawn().unwrap());
    assert!(status.success(), "{err}");
    assert!(err.lines().last().unwrap().contains("stopped network ("), "{err}");
}

#[test]
fn without_a_terminal_it_is_lines() {
    let out = act("act_story", "").output().unwrap();
    let (text, err) = (String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap());
    assert_eq!(out.status.code(), Some(3));
    assert!(text.ends_with("data\n"), "{text}");
    let mut words: Vec<_> = err.lines().filter_map(|l| l.split_once("s] ")).map(|(_, l)| l.split(" (").next().unwrap()).collect();
    words.retain(|l| !l.starts_with("wait"));
    assert_eq!(
        words,
        [
            "start   machines",
            "start   network",
            "done    network",
            "done    machines",
            "start   etcd",
            "failed  etcd: etcd did not start"
        ]
    );
    assert!(err.ends_with("\nerror: etcd did not start\n  next: look at it\n"), "{err}");
}

#[test]
fn json_is_a_stream_of_objects_with_the_outcome_last() {
    let out = act("act_story", "-o json").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let values: Vec<serde_json::Value> =
        text.lines().filter_map(|l| l.find("{\"time\"").map(|at| serde_json::from_str(&l[at..]).unwrap())).collect();
    let events: Vec<_> = values.iter().map(|v| v["event"].as_str().unwrap()).collect();
    assert_eq!(events.first(), Some(&"started"));
    assert_eq!(events[events.len() - 4..], ["result", "started", "failed", "error"]);
    let last = values.last().unwrap();
    assert_eq!((last["what"].as_str(), last["exitCode"].as_u64()), (Some("etcd did not start"), Some(3)));
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "error: etcd did not start\n  next: look at it\n");
}

#[test]
fn quiet_shows_only_the_error() {
    let out = act("act_story", "-q").output().unwrap();
    assert_eq!(String::from_utf8(out.stderr).unwrap(), "error: etcd did not start\n  next: look at it\n");
}

#[test]
fn a_question_needs_a_terminal_or_yes() {
    let out = act("act_confirm", "").output().unwrap();
    assert_eq!(out.status.code(), Some(2));
    assert!(String::from_utf8(out.stderr).unwrap().contains("-y"));
}

#[test]
fn a_closed_pipe_is_no_panic() {
    let mut child = act("act_print", "").spawn().unwrap();
    drop(until(&mut child, "line 10"));
    let (status, err) = end(child);
    assert!(!err.contains("panicked"), "{err}");
    assert!(err.contains("reader gone"), "{err}");
    assert_eq!(status.code(), Some(3));
}

#[test]
fn a_full_disk_makes_the_command_fail_at_its_end() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    // Not through `act`: the test harness would print to the same place and panic first.
    let out = Command::new(env!("CARGO_BIN_EXE_kup"))
        .args(["bundle", "list", "--all"])
        .env("XDG_CACHE_HOME", "/nonexistent")
        .stdout(full)
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let err = String::from_utf8(out.stderr).unwrap();
    assert_eq!(out.status.code(), Some(1), "{err}");
    assert!(err.contains("not all of the output could be written"), "{err}");
}

/// Runs a process on a pseudo-terminal of this size (util-linux's `script`) and returns all that it wrote.
fn on_terminal(command: &Command, rows: u16, columns: u16, term: &str, input: &str) -> Vec<u8> {
    let words: Vec<_> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|w| format!("'{}'", w.to_str().unwrap())).collect();
    let line = format!("stty rows {rows} cols {columns} -echo; exec {}", words.join(" "));
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env("TERM", term).env_remove("NO_COLOR").env("ACT", "").env("SHELL", "/bin/sh");
    for (key, value) in command.get_envs() {
        if let Some(value) = value {
            script.env(key, value);
        }
    }
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    child.stdout.take().unwrap().read_to_end(&mut bytes).unwrap();
    drop(stdin);
    child.wait().unwrap();
    bytes
}

/// The screen after these bytes, from the line after the test harness's own.
fn screen(bytes: &[u8], rows: u16, columns: u16) -> Vec<String> {
    let mut parser = vt100::Parser::new(rows, columns, 0);
    parser.process(bytes);
    assert!(!parser.screen().hide_cursor(), "the cursor stayed hidden");
    assert_eq!(parser.screen().cursor_position().1, 0, "the next prompt would not start at the left");
    parser.screen().contents().lines().map(str::to_owned).skip_while(|l| !l.starts_with("test act")).skip(1).collect()
}

#[test]
fn a_terminal_ends_with_one_line_per_step_and_nothing_else() {
    for (rows, columns) in [(24, 80), (50, 200)] {
        let bytes = on_terminal(&act("act_story", ""), rows, columns, "xterm", "");
        let lines = screen(&bytes, rows, columns);
        let starts: Vec<_> = lines.iter().map(|l| l.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
        // The harness leaves its own line open, so the first thing written shares it.
        assert_eq!(starts[starts.len() - 5..], ["✓ machines", "✓ network", "✗ etcd", "error: etcd", "next: look"], "{lines:#?}");
        let all = String::from_utf8_lossy(&bytes);
        assert!(all.contains("25 of 26 machines"), "the live tree was drawn: {all}");
        assert!(all.contains("data\r\n"), "{all}");
    }
}

#[test]
fn a_dumb_terminal_gets_lines() {
    let bytes = on_terminal(&act("act_story", ""), 24, 80, "dumb", "");
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert!(text.contains("s] done    network (172.29.0.0/24, "), "{text}");
}

#[test]
fn a_question_is_answered_on_the_terminal() {
    for (answer, meaning) in [("y\n", "true"), ("YES\n", "true"), ("\n", "false"), ("no\n", "false")] {
        let bytes = on_terminal(&act("act_confirm", ""), 24, 80, "xterm", answer);
        let text = String::from_utf8(bytes).unwrap();
        // Nothing in between: the cursor waits behind the question.
        assert!(text.contains(&format!("Remove it? [y/N] {meaning}\r\n")), "{answer:?}: {text:?}");
    }
}
