//! A cluster as it stands, as a picture: where its API is, and each machine by role with address, version, state and pods.

use svg::node::element::{Circle, Group};

use super::{FAINT, INK, MARGIN, explained, fitted, line, mono_width, px, rectangle, sans_width, sheet, text};

/// A machine's box.
const CARD: f64 = 292.0;
const GAP: f64 = 16.0;
/// Most boxes beside each other.
const COLUMNS: usize = 4;
/// Inside a box, left and right.
const INSET: f64 = 12.0;
/// From one line of pods to the next.
const LINE: f64 = 15.0;
/// The role of those who serve the API.
const MASTER: &str = "master";
/// Most pods that are named; beyond that they are counted by namespace.
const NAMED: usize = 8;

/// What is drawn.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Its name.
    pub name: String,
    /// Who made its machines.
    pub provider: String,
    /// Its Kubernetes version.
    pub version: String,
    /// Where users reach its API.
    pub endpoint: String,
    /// Why the API could not be asked, if it couldn't.
    pub silent: Option<String>,
    /// Its machines. Those of one role are drawn together, roles in order of first appearance.
    pub machines: Vec<Machine>,
    /// Pods that are on no node yet.
    pub waiting: Vec<Pod>,
    /// When it was like this.
    pub time: String,
}

/// A machine.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: String,
    /// Its address.
    pub address: String,
    /// How it is.
    pub state: State,
    /// Its kubelet's version, if the API says one.
    pub version: Option<String>,
    /// Its pods; none if nobody could be asked, or if it is no node.
    pub pods: Option<Vec<Pod>>,
}

/// A pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether it is ready, or has ended well.
    pub well: bool,
}

/// How a machine is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum State {
    /// Its Node is Ready.
    Ready,
    /// Its Node is Ready, but pods are kept from it.
    Cordoned,
    /// Its Node is not Ready, or it has none though it should.
    NotReady,
    /// It runs, and is no node or nobody could be asked.
    #[default]
    Running,
    /// It doesn't run.
    Stopped,
}

impl State {
    /// A word, and its colours: of the word's background, of its dot.
    const fn look(self) -> (&'static str, &'static str, &'static str) {
        match self {
            State::Ready => ("Ready", "#e3f4e8", "#2f9e5b"),
            State::Cordoned => ("cordoned", "#fdf1d7", "#d29a1b"),
            State::NotReady => ("NotReady", "#fbe4e1", "#d0382b"),
            State::Running => ("running", "#e6eefb", "#4a7fd0"),
            State::Stopped => ("stopped", "#eceff2", "#7b8794"),
        }
    }
}

/// What a machine's box says of its pods.
enum Entry<'a> {
    Pod(&'a Pod),
    Namespace(&'a str, usize, usize),
    More(usize),
}

/// Draws it.
pub fn draw(cluster: &Cluster) -> String {
    let groups = groups(&cluster.machines);
    let columns = groups.iter().map(|g| g.len()).max().unwrap_or(0).clamp(2, COLUMNS);
    // Masters stand in one row, since each is joined to what leads to it.
    let masters = groups.iter().filter(|g| g.iter().any(|m| m.role == MASTER)).map(Vec::len);
    let columns = masters.filter(|n| *n == COLUMNS + 1).fold(columns, usize::max);
    let width = 2.0 * MARGIN + columns as f64 * (CARD + GAP) - GAP;
    let mut paper = Group::new();
    let mut y = MARGIN + 18.0;
    let title = fitted(&format!("Cluster {}", cluster.name), 20.0, width - 2.0 * MARGIN);
    paper = paper.add(text(title, MARGIN, y, 20.0, "bold"));
    y += 22.0;
    let (count, pods) = (cluster.machines.len(), cluster.machines.iter().filter_map(|m| m.pods.as_ref()).map(Vec::len).sum());
    let facts = format!(
        "{}, Kubernetes {}, {}, {}, {}",
        cluster.provider,
        cluster.version,
        counted(count, "machine"),
        if cluster.silent.is_some() { "pods unknown".to_owned() } else { counted(pods, "pod") },
        cluster.time
    );
    paper = paper.add(text(facts, MARGIN, y, 12.0, "dim"));
    let notes = cluster.silent.iter().map(|why| ("bad", why.clone()));
    let waiting = (!cluster.waiting.is_empty()).then(|| {
        let names: Vec<String> = cluster.waiting.iter().map(|p| format!("{}/{}", p.namespace, p.name)).collect();
        ("bad", format!("on no node yet: {}", names.join(", ")))
    });
    for (class, words) in notes.chain(waiting) {
        y += 18.0;
        let shown = fitted(&words, 11.0, width - 2.0 * MARGIN);
        paper = paper.add(explained(words).add(text(shown, MARGIN, y, 11.0, &format!("mono {class}"))));
    }

    y += 20.0;
    let (endpoint, mut from) = endpoint(cluster, groups.first().map_or(1, |g| g.len().min(columns)), width, y);
    y = from.1 + 26.0;
    let mut joints = Group::new();
    let mut leads = true;
    for group in &groups {
        let role = group.first().map(|m| m.role.as_str()).unwrap_or_default();
        let heading = if group.len() == 1 { role.to_owned() } else { format!("{} {role}s", group.len()) };
        // From the API's address over what stands before the masters to the masters.
        if leads {
            let across = from.1 + 11.0;
            let beside = group.len().min(columns);
            let (first, last) = (middle(0).min(from.0), middle(beside.max(1) - 1).max(from.0));
            joints = joints.add(line(from.0, from.1, from.0, across, INK, 1.2)).add(line(first, across, last, across, INK, 1.2));
            for x in (0..beside).map(middle) {
                joints = joints.add(line(x, across, x, y + 12.0, INK, 1.2));
            }
        }
        paper = paper.add(text(heading, MARGIN, y + 2.0, 13.0, "bold"));
        y += 12.0;
        for row in group.chunks(columns) {
            let height = row.iter().map(|m| height(m)).fold(0.0, f64::max);
            for (at, machine) in row.iter().enumerate() {
                paper = paper.add(card(machine, &cluster.name, middle(at) - CARD / 2.0, y, height));
            }
            from = (middle(0), y + height);
            y += height + GAP;
        }
        leads = leads && role != MASTER;
        y += 14.0;
    }
    paper = paper.add(joints).add(endpoint);
    sheet(paper, width, y - 14.0 - GAP + MARGIN, &format!("The cluster {} as it stands", cluster.name))
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Machines of one role together, in order of first appearance.
fn groups(machines: &[Machine]) -> Vec<Vec<&Machine>> {
    let mut groups: Vec<Vec<&Machine>> = Vec::new();
    for machine in machines {
        match groups.iter_mut().find(|g| g.iter().any(|m| m.role == machine.role)) {
            Some(group) => group.push(machine),
            None => groups.push(vec![machine]),
        }
    }
    groups
}

/// The middle of a column.
fn middle(column: usize) -> f64 {
    MARGIN + column as f64 * (CARD + GAP) + CARD / 2.0
}

/// The API's address in a box above that many columns, and the middle of its lower edge.
fn endpoint(cluster: &Cluster, columns: usize, width: f64, y: f64) -> (Group, (f64, f64)) {
    let shown = fitted(&cluster.endpoint, 13.0, width - 2.0 * MARGIN - 70.0);
    let wide = 52.0 + mono_width(&shown, 13.0);
    let centre = f64::midpoint(middle(0), middle(columns - 1));
    let x = (centre - wide / 2.0).clamp(MARGIN, (width - MARGIN - wide).max(MARGIN));
    let fill = if cluster.silent.is_some() { "#fbe4e1" } else { "#e6eefb" };
    let group = explained(cluster.endpoint.as_str())
        .set("class", "endpoint")
        .add(rectangle(x, y, wide, 34.0, fill).set("rx", 17).set("stroke", INK).set("stroke-width", 1.2))
        .add(text("API", x + 14.0, y + 21.5, 12.0, "bold"))
        .add(text(shown, x + 42.0, y + 21.5, 13.0, "mono"));
    (group, (centre, y + 34.0))
}

fn entries(pods: &[Pod]) -> Vec<Entry<'_>> {
    if pods.len() <= NAMED {
        return pods.iter().map(Entry::Pod).collect();
    }
    let mut spaces: Vec<(&str, usize, usize)> = Vec::new();
    for pod in pods {
        let at = spaces.iter().position(|s| s.0 == pod.namespace).unwrap_or_else(|| {
            spaces.push((&pod.namespace, 0, 0));
            spaces.len() - 1
        });
        spaces[at].1 += 1;
        spaces[at].2 += usize::from(!pod.well);
    }
    let more = spaces.len().saturating_sub(NAMED);
    let shown = if more > 0 { NAMED - 1 } else { spaces.len() };
    let mut all: Vec<Entry<'_>> =
        spaces.iter().take(shown).map(|(name, all, unwell)| Entry::Namespace(name, *all, *unwell)).collect();
    if more > 0 {
        all.push(Entry::More(spaces.len() - shown));
    }
    all
}

fn height(machine: &Machine) -> f64 {
    let lines = machine.pods.as_ref().map_or(0, |p| entries(p).len());
    let heading = if machine.pods.is_some() { 22.0 } else { 0.0 };
    56.0 + heading + lines as f64 * LINE + 6.0
}

fn card(machine: &Machine, cluster: &str, x: f64, y: f64, height: f64) -> Group {
    let (word, back, dot) = machine.state.look();
    let short = machine.name.strip_prefix(cluster).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&machine.name);
    let pill = 24.0 + sans_width(word, 11.0);
    let inner = CARD - 2.0 * INSET;
    let border = if machine.state == State::NotReady { dot } else { FAINT };
    let mut group =
        Group::new().set("class", "machine").set("data-machine", machine.name.as_str()).set("data-role", machine.role.as_str());
    group = group.add(rectangle(x, y, CARD, height, "#fbfcfd").set("rx", 6).set("stroke", border).set("stroke-width", 1.4));
    let name = text(fitted(short, 14.0, inner - pill - 8.0), x + INSET, y + 23.0, 14.0, "mono bold");
    group = group.add(explained(machine.name.as_str()).add(name));
    let (left, top) = (x + CARD - INSET - pill, y + 9.0);
    group = group
        .add(rectangle(left, top, pill, 19.0, back).set("rx", 9.5))
        .add(Circle::new().set("cx", px(left + 10.0)).set("cy", px(top + 9.5)).set("r", 3.5).set("fill", dot))
        .add(text(word, left + 18.0, top + 13.3, 11.0, ""));
    let mut facts = machine.address.clone();
    if let Some(version) = &machine.version {
        facts = format!("{facts} · kubelet {version}");
    }
    group = group.add(text(fitted(&facts, 11.0, inner), x + INSET, y + 43.0, 11.0, "mono"));
    let Some(pods) = &machine.pods else { return group };
    group = group.add(line(x + INSET, y + 53.0, x + CARD - INSET, y + 53.0, FAINT, 1.0));
    let all: Vec<String> = pods.iter().map(|p| format!("{}/{}", p.namespace, p.name)).collect();
    let mut list = explained(all.join("\n")).set("class", "pods");
    let unwell = pods.iter().filter(|p| !p.well).count();
    let mut heading = if pods.is_empty() { "no pods".to_owned() } else { counted(pods.len(), "pod") };
    if unwell > 0 {
        heading = format!("{heading}, {unwell} not ready");
    }
    list = list.add(text(heading, x + INSET, y + 70.0, 12.0, if unwell > 0 { "bad" } else { "dim" }));
    for (nth, entry) in entries(pods).iter().enumerate() {
        let at = y + 70.0 + (nth + 1) as f64 * LINE;
        let (words, unwell) = match entry {
            Entry::Pod(pod) => (format!("{}/{}", pod.namespace, pod.name), !pod.well),
            Entry::Namespace(name, count, 0) => (format!("{count:>3} in {name}"), false),
            Entry::Namespace(name, count, unwell) => (format!("{count:>3} in {name}, {unwell} not ready"), true),
            Entry::More(count) => (format!("… {} more", counted(*count, "namespace")), false),
        };
        let class = if unwell { "mono bad" } else { "mono" };
        list = list.add(text(middle_cut(&words, 10.0, inner), x + INSET, at, 10.0, class));
    }
    group.add(list)
}

/// As much of a text as fits, cut in its middle: pods of one Deployment differ at the end of their names.
fn middle_cut(words: &str, size: f64, width: f64) -> String {
    if mono_width(words, size) <= width {
        return words.to_owned();
    }
    let tail: String = words.chars().skip(words.chars().count().saturating_sub(14)).collect();
    format!("{}{tail}", fitted(words, size, width - mono_width(&tail, size)))
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
