//! How progress looks: screens at several sizes, lines, JSON. All of this is pure; `tests/process.rs` has what needs processes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::{Duration, SystemTime};

use kup::error::Error;
use kup::report::chain;
use kup::report::display::Record;
use kup::report::event::{Event, Expected, Seconds, SpanId, Unit};
use kup::report::json;
use kup::report::plain::{Detail, Lines};
use kup::report::screen::{Frame, Look, Screen};

// ---- scenes ----

fn started(id: SpanId, parent: Option<SpanId>, title: &str, at: f64) -> (f64, Event) {
    (at, Event::Started { id, parent, title: title.into(), of: "machine", released_by: None, at: Seconds(at) })
}

fn waiting(id: SpanId, on: &str) -> (f64, Event) {
    (0.0, Event::Waiting { id, on: on.into(), at: Seconds(0.0) })
}

fn done(id: SpanId, took: f64) -> (f64, Event) {
    (0.0, Event::Done { id, result: None, took: Seconds(took), at: Seconds(0.0) })
}

fn done_with(id: SpanId, took: f64, result: &str) -> (f64, Event) {
    (0.0, Event::Done { id, result: Some(result.into()), took: Seconds(took), at: Seconds(0.0) })
}

fn failed(id: SpanId, took: f64, error: &str) -> (f64, Event) {
    (0.0, Event::Failed { id, error: error.into(), took: Seconds(took), at: Seconds(0.0) })
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
        (63.0, Event::Cancelled { id: 8, at: Seconds(63.0) }),
        failed(5, 61.3, "files could not be placed on kubernetes-minion-1"),
        (63.0, Event::Cancelled { id: 10, at: Seconds(63.0) }),
        (63.0, Event::Cancelled { id: 9, at: Seconds(63.0) }),
        (63.0, Event::Cancelled { id: 2, at: Seconds(63.0) }),
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

/// Reports as work does it, at moments of its choice.
struct Story {
    scene: Vec<(f64, Event)>,
    begun: Vec<f64>,
}

impl Story {
    fn tell(&mut self, at: f64, event: Event) {
        self.scene.push((at, event));
    }

    fn start(&mut self, parent: Option<SpanId>, title: &str, released_by: Option<SpanId>, at: f64) -> SpanId {
        self.begun.push(at);
        let id = self.begun.len() as SpanId;
        self.tell(at, Event::Started { id, parent, title: title.into(), of: "machine", released_by, at: Seconds(at) });
        id
    }

    fn wait(&mut self, id: SpanId, on: &str, at: f64) {
        self.tell(at, Event::Waiting { id, on: on.into(), at: Seconds(at) });
    }

    fn took(&self, id: SpanId, at: f64) -> Seconds {
        Seconds(at - self.begun[id as usize - 1])
    }

    fn end(&mut self, id: SpanId, result: &str, at: f64) {
        let result = (!result.is_empty()).then(|| result.to_owned());
        self.tell(at, Event::Done { id, result, took: self.took(id, at), at: Seconds(at) });
    }

    fn fail(&mut self, id: SpanId, error: &str, at: f64) {
        self.tell(at, Event::Failed { id, error: error.into(), took: self.took(id, at), at: Seconds(at) });
    }

    /// A step with one part for each machine: from when to when, and what released it. Returns the parts.
    fn step(&mut self, title: &str, result: &str, parts: &[(&str, Option<SpanId>, f64, f64)]) -> Vec<SpanId> {
        let step = self.start(None, title, None, parts.iter().map(|p| p.2).fold(f64::MAX, f64::min));
        let ids = parts
            .iter()
            .map(|(machine, released_by, from, _)| self.start(Some(step), machine, *released_by, *from))
            .collect::<Vec<_>>();
        for (id, part) in ids.iter().zip(parts) {
            self.end(*id, result, part.3);
        }
        self.end(step, "", parts.iter().map(|p| p.3).fold(0.0, f64::max));
        ids
    }
}

const MACHINES: [&str; 5] =
    ["kubernetes-master-1", "kubernetes-minion-1", "kubernetes-minion-2", "kubernetes-minion-3", "kubernetes-minion-4"];

/// An `up` of one master and four minions, up to the moment when everybody waits for the API; with the step of the API and its part.
fn up(expected: bool) -> (Story, SpanId, SpanId) {
    let mut s = Story { scene: Vec::new(), begun: Vec::new() };
    s.tell(0.0, Event::Run { title: "kubernetes".into(), expected: None });
    let plan = s.start(None, "plan", None, 0.01);
    s.end(plan, "7 to create", 0.3);
    if expected {
        let steps = [
            ("plan", 0.3),
            ("host", 0.2),
            ("certificates", 0.2),
            ("machines", 1.4),
            ("connections", 1.2),
            ("files", 1.3),
            ("container runtime", 1.1),
            ("etcd", 0.9),
            ("API server", 2.6),
            ("nodes joining", 1.6),
            ("pod network", 1.2),
            ("all ready", 2.1),
        ];
        let steps = steps.map(|(title, took)| (title.to_owned(), Seconds(took))).into();
        s.tell(0.3, Event::Run { title: "kubernetes".into(), expected: Some(Expected { runs: 3, total: Seconds(10.4), steps }) });
    }
    let host = s.start(None, "host", None, 0.3);
    s.end(host, "", 0.5);
    let certificates = s.start(None, "certificates", None, 0.5);
    s.end(certificates, "", 0.7);
    let at = |nth: usize| 1.0 + nth as f64 / 5.0;
    let parts: Vec<_> = MACHINES.iter().enumerate().map(|(n, m)| (*m, None, 0.8, at(n))).collect();
    let machines = s.step("machines", "", &parts);
    let parts: Vec<_> = MACHINES.iter().enumerate().map(|(n, m)| (*m, Some(machines[n]), at(n), at(n) + 0.5)).collect();
    let connect = s.step("connections", "2 CPUs, 24031 MiB", &parts);
    let parts: Vec<_> = MACHINES.iter().enumerate().map(|(n, m)| (*m, Some(connect[n]), at(n) + 0.5, at(n) + 0.9)).collect();
    let files = s.step("files", "31 of 31 changed", &parts);
    let etcd = s.step("etcd", "started", &[(MACHINES[0], Some(files[0]), 1.9, 2.7)]);
    let step = s.start(None, "container runtime", None, 1.9);
    for (nth, machine) in MACHINES.iter().enumerate() {
        let id = s.start(Some(step), machine, Some(files[nth]), at(nth) + 0.9);
        s.wait(id, "containerd to start", at(nth) + 0.9);
        if nth < 3 {
            s.end(id, "started", at(nth) + 1.7);
        }
    }
    let api = s.start(None, "API server", None, 2.7);
    let part = s.start(Some(api), MACHINES[0], Some(etcd[0]), 2.7);
    s.wait(part, "kube-apiserver to start", 2.7);
    s.wait(part, "/readyz (last: poststarthook/rbac/bootstrap-roles)", 2.9);
    (s, api, part)
}

/// The same run to its good end, with expectations.
fn up_well() -> Story {
    let (mut s, api, part) = up(true);
    for (nth, id) in (api - 2..api).chain([api - 6]).enumerate() {
        s.end(id, "started", 3.3 + nth as f64 / 10.0);
    }
    s.end(part, "started", 5.6);
    s.end(api, "", 5.6);
    let parts: Vec<_> = MACHINES.iter().enumerate().map(|(n, m)| (*m, Some(part), 5.6, (64 + n) as f64 / 10.0)).collect();
    let joined = s.step("nodes joining", "started", &parts);
    let ready = s.step("all ready", "5 nodes, DNS answers (2 from pods)", &[("cluster", Some(joined[4]), 6.8, 9.9)]);
    s.wait(ready[0], "CoreDNS (last: 1 of 2 ready)", 7.0);
    s
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
    for scene in [running(), well(), badly(), many(), up(true).0.scene, up_well().scene] {
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
fn a_running_up_says_what_to_expect() {
    let (story, ..) = up(true);
    insta::assert_snapshot!("up_80", seen(&frame(&story.scene, look(80, 24), 4.25, false)));
    insta::assert_snapshot!("up_200", seen(&frame(&story.scene, look(200, 50), 4.25, false)));
    let (story, ..) = up(false);
    insta::assert_snapshot!("up_first_80", seen(&frame(&story.scene, look(80, 24), 4.25, false)));
}

#[test]
fn what_is_waited_for_is_named_however_little_room_there_is() {
    let (mut story, ..) = up(true);
    for nth in 0..12 {
        let step = story.start(None, &format!("step {nth}"), None, 4.0);
        story.wait(step, "1 more machine", 4.1);
    }
    insta::assert_snapshot!("up_crowded_80", seen(&frame(&story.scene, look(80, 16), 4.25, false)));
    for height in 3..40 {
        let lines = frame(&story.scene, look(80, height), 4.25, false).live;
        let under_way = lines.iter().filter(|l| l.contains('⠹') && !l.starts_with("  "));
        for (nth, line) in under_way.enumerate() {
            // The machines of the first step may have lines of their own.
            let below = nth == 0 && lines.iter().any(|l| l.contains("minion-3") && l.contains("waiting: containerd"));
            assert!(line.contains("waiting: ") || below, "{height}: {line}");
        }
    }
}

/// The chain below the last frame, as `up` prints it.
fn with_chain(story: &Story, width: usize, now: f64, well: bool) -> String {
    let mut record = Record { now, ..Record::default() };
    for (at, event) in &story.scene {
        record.tree.apply(event, *at);
    }
    let links = chain::chain(&record, well);
    let sum: f64 = links.iter().map(chain::Link::took).sum();
    assert!((sum - now).abs() < 1e-6);
    let lines = chain::lines(&links, "kubernetes-", width - 3).join("\n  ");
    assert!(lines.lines().all(|l| console::measure_text_width(l) < width));
    format!("{}\nWhat the time went to:\n  {lines}", seen(&frame(&story.scene, look(width, 50), now, true)))
}

#[test]
fn an_up_ends_with_what_the_time_went_to() {
    insta::assert_snapshot!("up_well_80", with_chain(&up_well(), 80, 10.0, true));
    insta::assert_snapshot!("up_well_200", with_chain(&up_well(), 200, 10.0, true));
}

#[test]
fn a_failed_up_says_where() {
    let (mut story, api, part) = up(true);
    let error = "https://172.29.0.11:6443/readyz did not become ok within 120 s";
    story.fail(part, error, 122.9);
    story.fail(api, error, 122.9);
    for id in (1..story.begun.len() as SpanId).rev() {
        let ended = |(_, e): &(f64, Event)| matches!(e, Event::Done { id: i, .. } | Event::Failed { id: i, .. } if *i == id);
        if !story.scene.iter().any(ended) {
            story.tell(123.0, Event::Cancelled { id, at: Seconds(123.0) });
        }
    }
    insta::assert_snapshot!("up_badly_80", seen(&frame(&story.scene, look(80, 24), 123.0, true)));
    insta::assert_snapshot!("up_badly_200", seen(&frame(&story.scene, look(200, 50), 123.0, true)));
}

#[test]
fn what_is_expected_is_also_said_in_lines() {
    let mut lines = Lines::new(Detail::Steps);
    let text: Vec<String> = up_well().scene.iter().filter_map(|(at, event)| lines.event(event, *at)).collect();
    insta::assert_snapshot!("up_plain", text.join("\n"));
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
