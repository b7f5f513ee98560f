//! How progress looks: screens at several sizes, lines, JSON. All of this is pure; `tests/process.rs` has what needs processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, SystemTime};

use kup::error::Error;
use kup::report::event::{Event, Seconds, SpanId, Unit};
use kup::report::json;
use kup::report::plain::{Detail, Lines};
use kup::report::terminal::{Frame, Look, Screen};

// ---- scenes ----

fn started(id: SpanId, parent: Option<SpanId>, title: &str, at: f64) -> (f64, Event) {
    (at, Event::Started { id, parent, title: title.into(), of: "machine", at: Seconds(at) })
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
        started(4, None, "kubelet", 0.0),
        started(5, Some(4), "a-cluster-whose-name-has-forty-characters-minion-1", 0.0),
        started(6, Some(4), "a-cluster-whose-name-has-forty-characters-minion-2", 0.0),
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
