//! How progress looks and behaves: screens as they are drawn, lines, JSON, signals, closed pipes.
//!
//! Tests that need a process of its own start this very test program again with one of the ignored `act_*` tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use kup::cli::{Cli, Color, Conduct, Global, Output, Ui, drive, drive::Surroundings};
use kup::error::{Error, Kind, Result};
use kup::report::display;
use kup::report::event::{Event, Seconds, SpanId, Unit};
use kup::report::json;
use kup::report::plain::{Detail, Lines};
use kup::report::terminal::{Frame, Look, Screen};

// ---- scenes ----

fn started(id: SpanId, parent: Option<SpanId>, title: &str, at: f64) -> (f64, Event) {
    (at, Event::Started { id, parent, title: title.into(), at: Seconds(at) })
}

fn waiting(id: SpanId, on: &str) -> (f64, Event) {
    (0.0, Event::Waiting { id, on: on.into() })
}

fn done(id: SpanId, took: f64) -> (f64, Event) {
    (0.0, Event::Done { id, result: None, took: Seconds(took), at: Seconds(0.0) })
}

fn done_with(id: SpanId, took: f64, result: &str) -> (f64, Event) {
    (0.0, Event::Done { id, result: Some(result.into()), took: Seconds(took), at: Seconds(0.0) })
}

fn failed(id: SpanId, took: f64, error: &str) -> (f64, Event) {
    (0.0, Event::Failed { id, error: error.into(), took: Seconds(took) })
}

fn progress(id: SpanId, done: u64, total: u64, unit: Unit) -> (f64, Event) {
    (0.0, Event::Progress { id, done, total: Some(total), unit })
}

/// A run in the middle: finished steps, steps that overlap, machines, waits and bars.
fn running() -> Vec<(f64, Event)> {
    vec![
        started(1, None, "network", 0.0),
        done_with(1, 0.31, "172.29.0.0/24"),
        started(2, None, "bundle", 0.1),
        progress(2, 120 << 20, 266 << 20, Unit::Bytes),
        started(3, None, "machines", 0.4),
        started(4, Some(3), "kubernetes-master-1", 0.4),
        done(4, 1.2),
        done(3, 1.3),
        started(5, None, "files", 1.8),
        started(6, Some(5), "kubernetes-master-1", 1.8),
        started(7, Some(5), "kubernetes-minion-1", 1.9),
        started(8, Some(5), "kubernetes-minion-2", 2.0),
        done(6, 1.0),
        waiting(7, "ssh answers on 172.29.0.3 (last: connection refused)"),
        progress(8, 3, 14, Unit::Items),
        started(9, None, "etcd", 2.9),
        started(10, Some(9), "kubernetes-master-1", 2.9),
        waiting(10, "etcd answers on port 2379"),
    ]
}

/// The same run, ended well.
fn well() -> Vec<(f64, Event)> {
    let mut scene = running();
    scene.extend([
        done(10, 0.8),
        done(9, 0.8),
        done(7, 3.0),
        done(8, 2.0),
        done(5, 3.1),
        done_with(2, 65.0, "14 files, 266 MiB"),
    ]);
    scene
}

/// The same run, ended badly: one machine failed, the others were given up.
fn badly() -> Vec<(f64, Event)> {
    let mut scene = running();
    scene.extend([
        failed(7, 61.2, "SSH on kubernetes-minion-1 (172.29.0.3) did not answer within 60 s\nlast: connection refused"),
        (63.0, Event::Cancelled { id: 8 }),
        failed(5, 61.3, "files could not be placed on kubernetes-minion-1"),
        (63.0, Event::Cancelled { id: 10 }),
        (63.0, Event::Cancelled { id: 9 }),
        (63.0, Event::Cancelled { id: 2 }),
        (63.0, Event::Warning { text: "the bundle's cache is on a file system with only 2 GiB left; the next build of the bundle needs about 6 GiB there".into() }),
    ]);
    scene
}

/// Twenty-five machines below one step and five below another.
fn many() -> Vec<(f64, Event)> {
    let mut scene = vec![started(1, None, "images", 0.0), started(2, None, "kubelet", 1.0)];
    for i in 0..5 {
        scene.push(started(10 + i, Some(1), &format!("kubernetes-master-{}", i + 1), 0.5));
    }
    for i in 0..25 {
        scene.push(started(20 + i, Some(2), &format!("kubernetes-minion-{}", i + 1), 1.0 + i as f64 / 10.0));
        scene.push(waiting(20 + i, "node is Ready"));
    }
    scene.extend([done(20, 1.0), done(22, 1.0), failed(44, 0.5, "unit kubelet.service failed")]);
    scene
}

fn look(width: usize, height: usize) -> Look {
    Look { width, height, colour: false, verbose: false }
}

fn frame(scene: &[(f64, Event)], look: Look, now: f64, last: bool) -> Frame {
    let mut screen = Screen::default();
    for (at, event) in scene {
        screen.apply(event, *at);
    }
    screen.frame(look, now, last)
}

/// What a reader sees: final lines, then live ones below a rule.
fn seen(frame: &Frame) -> String {
    let live = if frame.live.is_empty() { String::new() } else { format!("\n~~~\n{}", frame.live.join("\n")) };
    format!("{}{live}", frame.finished.join("\n"))
}

// ---- rendering ----

#[test]
fn screens_at_80_columns() {
    insta::assert_snapshot!("running_80", seen(&frame(&running(), look(80, 24), 4.25, false)));
    insta::assert_snapshot!("well_80", seen(&frame(&well(), look(80, 24), 66.0, false)));
    insta::assert_snapshot!("badly_80", seen(&frame(&badly(), look(80, 24), 63.0, true)));
    insta::assert_snapshot!("many_80", seen(&frame(&many(), look(80, 24), 9.0, false)));
}

#[test]
fn screens_at_200_columns() {
    insta::assert_snapshot!("running_200", seen(&frame(&running(), look(200, 50), 4.25, false)));
    insta::assert_snapshot!("badly_200", seen(&frame(&badly(), look(200, 50), 63.0, true)));
    insta::assert_snapshot!("many_200", seen(&frame(&many(), look(200, 50), 9.0, false)));
}

#[test]
fn verbose_keeps_the_machines_of_finished_steps() {
    insta::assert_snapshot!("verbose_80", seen(&frame(&well(), Look { verbose: true, ..look(80, 24) }, 66.0, false)));
}

#[test]
fn titles_may_be_long_wide_or_hostile() {
    let scene = [
        started(1, None, "a step whose title is longer than any reasonable step's title should ever be", 0.0),
        waiting(1, "数据库服务器正在启动并等待其他成员加入集群以便选举出新的领导者节点然后继续进行下一步的工作"),
        started(2, None, "集群网络配置步骤名称非常非常非常长", 0.0),
        started(3, None, "naïve café 🚀", 0.0),
        waiting(3, "\u{1b}[2J\u{1b}[31mred\u{1b}[0m\r\nsecond line"),
    ];
    insta::assert_snapshot!("titles_80", seen(&frame(&scene, look(80, 24), 1.0, false)));
}

#[test]
fn nothing_wraps_and_nothing_overflows_at_any_size() {
    for scene in [running(), well(), badly(), many()] {
        for (width, height) in [(1, 1), (10, 3), (40, 10), (80, 24), (81, 8), (200, 50)] {
            for colour in [false, true] {
                for last in [false, true] {
                    let frame = frame(&scene, Look { colour, ..look(width, height) }, 9.0, last);
                    for line in frame.finished.iter().chain(&frame.live) {
                        assert!(console::measure_text_width(line) < width.max(2), "{width}: {line:?}");
                        assert!(!line.contains('\n'), "{line:?}");
                    }
                    assert!(frame.live.len() < height.max(2), "{} live lines in {height} rows", frame.live.len());
                }
            }
        }
    }
}

#[test]
fn colour_is_only_there_when_asked_for() {
    let text = |colour| seen(&frame(&badly(), Look { colour, ..look(80, 24) }, 63.0, true));
    assert!(text(true).contains('\u{1b}'));
    assert!(!text(false).contains('\u{1b}'));
    assert_eq!(console::strip_ansi_codes(&text(true)), text(false));
}

#[test]
fn steps_scroll_away_in_order_of_start_and_only_once() {
    let mut screen = Screen::default();
    let mut lines = Vec::new();
    for id in 1..=3 {
        let (at, event) = started(id, None, &format!("step{id}"), 0.0);
        screen.apply(&event, at);
    }
    for id in [3, 2, 1] {
        screen.apply(&done(id, 1.0).1, 1.0);
        lines.extend(screen.frame(look(80, 24), 1.0, false).finished);
        assert_eq!(lines.len(), if id == 1 { 3 } else { 0 }, "step1 still ran when step{id} ended");
    }
    lines.extend(screen.frame(look(80, 24), 2.0, true).finished);
    let titles: Vec<_> = lines.iter().map(|l| l.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(titles, ["step1", "step2", "step3"]);
}

#[test]
fn notes_stand_where_they_were_said() {
    let note = |text: &str| Event::Note { text: text.into() };
    let mut screen = Screen::default();
    screen.apply(&note("first"), 0.0);
    screen.apply(&started(1, None, "step1", 0.0).1, 0.0);
    screen.apply(&done(1, 0.1).1, 0.1);
    screen.apply(&note("second"), 0.1);
    let lines = screen.frame(look(80, 24), 0.1, false).finished;
    let words: Vec<_> = lines.iter().map(|l| l.split_whitespace().nth(1).unwrap()).collect();
    assert_eq!(words, ["first", "step1", "second"]);
}

#[test]
fn plain_lines_say_what_matters_and_no_more() {
    let lines = |detail: Detail| {
        let mut lines = Lines::new(detail);
        let mut text = Vec::new();
        let mut scene = badly();
        scene.insert(1, (0.2, Event::Note { text: "using config-default.yaml".into() }));
        let mut now: f64 = 0.0;
        for (at, event) in scene {
            now = now.max(at);
            text.extend(lines.due(now));
            text.extend(lines.event(&event, now));
            if matches!(event, Event::Waiting { id: 10, .. }) {
                // A minute in which nothing happens.
                for _ in 0..60 {
                    now += 1.0;
                    text.extend(lines.due(now));
                }
            }
        }
        text.join("\n")
    };
    insta::assert_snapshot!("plain", lines(Detail::Steps));
    insta::assert_snapshot!("plain_verbose", lines(Detail::Machines));
    insta::assert_snapshot!("plain_quiet", lines(Detail::Quiet));
    assert!(!lines(Detail::Machines).chars().any(|c| c.is_control() && c != '\n'));
}

#[test]
fn json_lines_carry_time_and_outcome() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
    let mut lines: Vec<String> = running()[..4].iter().map(|(now, e)| json::event(e, at, *now).unwrap()).collect();
    lines.push(json::outcome::<Vec<u8>>(Ok(&vec![1]), at, 7.0).unwrap());
    let error = Error::usage("bad").why("because").hint("do");
    lines.push(json::outcome::<()>(Err(&error), at, 7.0).unwrap());
    insta::assert_snapshot!("json", lines.join("\n"));
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["time"], "2027-01-15T08:00:00.123Z");
    }
}

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
        ui.print("hanging")?;
        // Longer than any test lasts; what ends it is the signal.
        tokio::time::sleep(Duration::from_secs(600)).await;
        Ok(())
    })
}

#[test]
#[ignore = "a part of other tests"]
fn act_block() {
    play(async |ui| {
        ui.print("blocking")?;
        std::thread::sleep(Duration::from_secs(600));
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
        ui.print("data")?;
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
fn act_confirm() {
    play(async |ui| ui.print(ui.confirm("Remove it?", false).await?))
}

#[test]
#[ignore = "a part of other tests"]
fn act_print() {
    play(async |ui| {
        for i in 0..100_000 {
            ui.print(format_args!("line {i}"))?;
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
        assert!(lines.iter().any(|l| l.ends_with("data")) || all.contains("data"), "{lines:#?}");
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
