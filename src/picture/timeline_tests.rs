use super::super::check::{leave, readable};
use super::*;
use crate::report::event::{Event, Seconds, SpanId};

/// Makes up a run that is like real ones.
#[derive(Default)]
struct Story {
    record: Record,
    ids: SpanId,
}

type Ends = Vec<(String, f64, SpanId)>;

impl Story {
    fn start(&mut self, parent: Option<SpanId>, title: &str, released_by: Option<SpanId>, at: f64) -> SpanId {
        self.ids += 1;
        let event = Event::Started { id: self.ids, parent, title: title.into(), of: "machine", released_by, at: Seconds(at) };
        self.record.tree.apply(&event, at);
        self.ids
    }

    fn end(&mut self, id: SpanId, at: f64) {
        self.record.tree.apply(&Event::Done { id, result: Some("started".into()), took: Seconds(0.0), at: Seconds(at) }, at);
        self.record.now = self.record.now.max(at);
    }

    fn alone(&mut self, title: &str, from: f64, to: f64) {
        let id = self.start(None, title, None, from);
        self.end(id, to);
    }

    /// A step on these machines, each after its own end in `after`, or after the last of `all`.
    fn step(&mut self, title: &str, wait: &str, on: &[String], after: &[&Ends], all: &[&Ends], took: f64) -> Ends {
        let last = all.iter().flat_map(|e| e.iter()).max_by(|a, b| a.1.total_cmp(&b.1));
        let mut parts = Vec::new();
        for (nth, machine) in on.iter().enumerate() {
            let own = after.iter().flat_map(|e| e.iter()).filter(|e| e.0 == *machine);
            let need = own.chain(last).max_by(|a, b| a.1.total_cmp(&b.1));
            let from = need.map_or(0.0, |n| n.1);
            parts.push((machine.clone(), need.map(|n| n.2), from, from + took * (1.0 + (nth * 7 % 5) as f64 / 8.0)));
        }
        let first = parts.iter().map(|p| p.2).fold(f64::MAX, f64::min);
        let step = self.start(None, title, None, first);
        let mut ends = Ends::new();
        for (machine, need, from, to) in parts {
            let id = self.start(Some(step), &machine, need, from);
            let begun = from + (to - from) * 0.2;
            self.record.tree.apply(&Event::Waiting { id, on: wait.into(), at: Seconds(begun) }, begun);
            self.end(id, to);
            ends.push((machine, to, id));
        }
        self.end(step, ends.iter().map(|e| e.1).fold(0.0, f64::max));
        ends
    }
}

fn machines(cluster: &str, masters: usize, minions: usize) -> (Vec<String>, Vec<String>) {
    let balancers = if masters > 1 { vec![format!("{cluster}-balancer-1")] } else { vec![] };
    let masters: Vec<String> = (1..=masters).map(|n| format!("{cluster}-master-{n}")).collect();
    let all = balancers.iter().chain(&masters).cloned().chain((1..=minions).map(|n| format!("{cluster}-minion-{n}"))).collect();
    (masters, all)
}

fn story(cluster: &str, masters: usize, minions: usize) -> Story {
    let (masters, all) = machines(cluster, masters, minions);
    let cluster = ["cluster".to_owned()];
    let mut s = Story::default();
    s.alone("plan", 0.02, 0.31);
    s.alone("host", 0.31, 0.55);
    s.alone("certificates", 0.56, 0.9);
    let step = s.start(None, "machines", None, 0.6);
    let mut made = Ends::new();
    for (nth, machine) in all.iter().enumerate() {
        let id = s.start(Some(step), machine, None, 1.0);
        let at = 1.3 + nth as f64 * 0.11;
        s.end(id, at);
        made.push((machine.clone(), at, id));
    }
    s.end(step, made.last().unwrap().1);
    let connect = s.step("connections", "SSH (last: refused)", &all, &[&made], &[], 0.5);
    let bundle = s.step("bundle", "", &all, &[&connect], &[], 0.001);
    let files = s.step("files", "the machine to write them", &all, &[&connect], &[], 0.3);
    let runtime = s.step("container runtime", "containerd to start", &all, &[&files, &bundle], &[], 0.9);
    let etcd = s.step("etcd", "etcd to have a leader", &masters, &[&files], &[], 0.7);
    let api = s.step("API server", "/readyz to say ok", &masters, &[&etcd], &[], 2.9);
    let controllers = s.step("controllers, scheduler", "both units to start", &masters, &[&api], &[], 0.5);
    let access = s.step("access rules", "the API to take the access rules", &cluster, &[], &[&api], 0.2);
    let kubelet = s.step("nodes joining", "the Node to be registered", &all, &[&runtime], &[&api], 0.8);
    let network = s.step("pod network", "the Node's pod range", &all, &[&kubelet], &[&access, &controllers], 0.9);
    let proxy = s.step("service proxy", "kube-proxy to start", &all, &[&kubelet], &[&access], 0.3);
    let dns = s.step("DNS", "the API to take CoreDNS", &cluster, &[], &[&api], 0.2);
    let ready = s.step("all ready", "CoreDNS (last: 1 of 2 ready)", &cluster, &[], &[&network, &proxy, &dns], 2.4);
    s.alone("kubeconfig", ready[0].1 + 0.02, ready[0].1 + 0.08);
    s.record.now += 0.05;
    s
}

/// The lanes' names, and how many bars of a step there are.
fn lanes_of(svg: &str) -> (Vec<String>, impl Fn(&str) -> usize) {
    let document = roxmltree::Document::parse(svg).unwrap();
    let lanes = document.descendants().filter_map(|n| n.attribute("data-lane")).map(str::to_owned).collect();
    let bars: Vec<String> = document.descendants().filter_map(|n| n.attribute("data-step")).map(str::to_owned).collect();
    (lanes, move |step: &str| bars.iter().filter(|b| *b == step).count())
}

#[test]
fn runs_of_all_sizes_are_readable() {
    let long = "a-cluster-whose-name-has-40-characters-x";
    for (name, masters, minions) in [("kubernetes", 1, 0), ("kubernetes", 1, 4), (long, 3, 3), ("kubernetes", 1, 20)] {
        let record = story(name, masters, minions).record;
        let svg = draw(&record, name, true);
        leave(&format!("timeline-{masters}-{minions}"), &svg);
        let words = readable(&svg);
        let (lanes, bars) = lanes_of(&svg);
        let (_, all) = machines(name, masters, minions);
        assert_eq!(lanes.len(), all.len() + 2, "{lanes:?}");
        assert_eq!(lanes[..2], ["kup", "cluster"]);
        for machine in &all {
            assert!(lanes.contains(machine), "no lane for {machine}");
            let short = machine.strip_prefix(&format!("{name}-")).unwrap();
            assert!(words.iter().any(|w| w == short), "no name at the lane of {machine}");
        }
        assert_eq!((bars("connections"), bars("API server"), bars("all ready")), (all.len(), masters, 1));
        for step in record.tree.steps() {
            let title = &record.tree.nodes[step].title;
            assert!(bars(title) > 0, "no bar for {title}");
            assert!(words.contains(title), "{title} is in no legend");
        }
    }
}

#[test]
fn a_failed_run_shows_where() {
    let mut s = Story::default();
    s.alone("plan", 0.02, 0.31);
    let step = s.start(None, "files", None, 0.4);
    let failing = s.start(Some(step), "c-minion-1", None, 0.4);
    let stopped = s.start(Some(step), "c-minion-2", None, 0.4);
    let why = "SSH on c-minion-1 (172.29.0.3) did not answer within 60 s <&\"'>\u{1b}[31m ".to_owned() + &"and more ".repeat(40);
    s.record.tree.apply(&Event::Failed { id: failing, error: why.clone(), took: Seconds(60.0), at: Seconds(60.4) }, 60.4);
    s.record.tree.apply(&Event::Cancelled { id: stopped, at: Seconds(60.5) }, 60.5);
    s.record.tree.apply(&Event::Failed { id: step, error: why, took: Seconds(60.1), at: Seconds(60.5) }, 60.5);
    let idle = s.start(None, "bundle", None, 0.5);
    let part = s.start(Some(idle), "c-minion-3", None, 0.5);
    s.end(part, 1.0);
    s.record.tree.apply(&Event::Cancelled { id: idle, at: Seconds(60.5) }, 60.5);
    s.record.now = 60.6;
    let svg = draw(&s.record, "c", false);
    leave("timeline-failed", &svg);
    let words = readable(&svg);
    assert!(
        words.iter().any(|w| w.starts_with("✗ files on c-minion-1 at 1m00s: SSH on c-minion-1 (172.29.0.3) did not answer")),
        "{words:#?}"
    );
    let (lanes, bars) = lanes_of(&svg);
    assert_eq!(lanes, ["kup", "c-minion-1", "c-minion-2", "c-minion-3"]);
    assert_eq!((bars("files"), bars("bundle")), (2, 1), "what waits for parts that never come does nothing");
    for word in ["failed", "stopped", "1m00s, 3 machines, did not end well"] {
        assert!(words.iter().any(|w| w == word), "{word}: {words:#?}");
    }
}

#[test]
fn runs_of_any_length_have_an_axis() {
    assert!(readable(&draw(&Record::default(), "c", true)).iter().any(|w| w == "kup up: cluster c"));
    for total in [0.004, 0.8, 3.0, 14.0, 59.0, 61.0, 200.0, 900.0, 4000.0, 100_000.0, 2e6] {
        let mut s = Story::default();
        s.alone("plan", 0.0, total);
        let words = readable(&draw(&s.record, "c", true));
        assert!(words.iter().filter(|w| w.ends_with(['s', 'm'])).count() >= 2, "{total}: {words:?}");
        assert!(tick(total) * 13.0 >= total && tick(total) > 0.0);
    }
}

#[test]
fn machines_are_in_natural_order() {
    let mut names = ["minion-10", "minion-9", "master-1", "minion-1", "x"];
    names.sort_by_key(|n| natural(n));
    assert_eq!(names, ["master-1", "minion-1", "minion-9", "minion-10", "x"]);
}
