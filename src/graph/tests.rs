//! The graph with a cloud that lives in memory, where what is in use can't be removed, and where creations can be held up or fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Barrier;

use super::plan::check_kinds;
use super::resource::list_all;
use super::*;
use crate::error::{Error, Kind as Failure, Result};
use crate::report::Report;

/// Names of the kinds of [`Thing`]: what is built on what.
const NET: usize = 0;
const PART: usize = 1;
const DISK: usize = 2;
const MACHINE: usize = 3;
const NAMES: [&str; 4] = ["net", "part", "disk", "machine"];
const KINDS: [Kind<World>; 4] =
    [kind::<Thing<NET>>(&[]), kind::<Thing<PART>>(&["net"]), kind::<Thing<DISK>>(&[]), kind::<Thing<MACHINE>>(&["part", "disk"])];

#[derive(Default)]
struct World {
    things: Mutex<BTreeMap<String, Stored>>,
    log: Mutex<Vec<String>>,
    /// Creations, changes and removals that fail.
    broken: Mutex<Vec<&'static str>>,
    /// Creations of these names meet here before they go on.
    meet: Option<(Vec<&'static str>, Barrier)>,
}

impl Cloud for World {
    fn something_stays(&self) {
        self.log.lock().unwrap().push(STAYS.into());
    }
}

/// What the log says when a sweep tells its cloud that something could not be removed.
const STAYS: &str = "something stays";

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    id: String,
    kind: &'static str,
    name: String,
    tags: u32,
    size: u32,
    range: u32,
    /// The ids of what it uses.
    uses: Vec<String>,
}

impl World {
    fn new() -> World {
        World::default()
    }

    fn log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock().unwrap())
    }

    fn names(&self) -> Vec<String> {
        self.things.lock().unwrap().values().map(|t| t.name.clone()).collect()
    }

    fn put(&self, id: &str, kind: usize, name: &str, uses: &[&str]) {
        let uses = uses.iter().map(|u| (*u).to_owned()).collect();
        let thing = Stored { id: id.into(), kind: NAMES[kind], name: name.into(), tags: 1, size: 1, range: 1, uses };
        self.things.lock().unwrap().insert(id.to_owned(), thing);
    }

    fn does(&self, verb: &str, name: &str) -> Result<()> {
        let what = format!("{verb} {name}");
        self.log.lock().unwrap().push(what.clone());
        if self.broken.lock().unwrap().iter().any(|b| *b == what) {
            return Err(Error::new(format!("{name} broke")).why("no luck").hint(format!("mend {name}")));
        }
        Ok(())
    }
}

/// Something wanted. Its tags change in place, its size by making it anew, its range not at all.
struct Thing<const K: usize> {
    name: String,
    needs: Vec<Address>,
    /// Asked for without being declared.
    sneaks: bool,
    tags: u32,
    size: u32,
    range: u32,
}

fn thing<const K: usize>(name: &str) -> Thing<K> {
    Thing { name: name.into(), needs: Vec::new(), sneaks: false, tags: 1, size: 1, range: 1 }
}

impl<const K: usize> Thing<K> {
    fn on(mut self, need: impl Into<Address>) -> Self {
        self.needs.push(need.into());
        self
    }

    fn stored(&self, id: String, uses: Vec<String>) -> Stored {
        Stored { id, kind: NAMES[K], name: self.name.clone(), tags: self.tags, size: self.size, range: self.range, uses }
    }
}

impl<const K: usize> From<&Ref<Thing<K>>> for Address {
    fn from(to: &Ref<Thing<K>>) -> Address {
        to.address()
    }
}

impl Found for Stored {
    fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> &str {
        &self.id
    }
}

/// The ids of what is needed, by asking for each as its kind.
fn ids(needs: &[Address], cx: &Cx<'_, World>) -> Result<Vec<String>> {
    let id = |need: &Address| {
        Ok(match need.kind {
            "net" => cx.get(&Ref::<Thing<NET>>::to(&need.name))?.id.clone(),
            "part" => cx.get(&Ref::<Thing<PART>>::to(&need.name))?.id.clone(),
            "disk" => cx.get(&Ref::<Thing<DISK>>::to(&need.name))?.id.clone(),
            _ => cx.get(&Ref::<Thing<MACHINE>>::to(&need.name))?.id.clone(),
        })
    };
    needs.iter().map(id).collect()
}

impl<const K: usize> Resource for Thing<K> {
    type Cloud = World;
    type Found = Stored;
    const KIND: &'static str = NAMES[K];

    fn name(&self) -> &str {
        &self.name
    }

    fn needs(&self) -> Vec<Address> {
        self.needs.clone()
    }

    fn detail(&self) -> String {
        format!("size {}", self.size)
    }

    fn diff(&self, found: &Stored, cx: &Cx<'_, World>) -> Vec<Change> {
        if self.sneaks {
            assert!(cx.look(&Ref::<Thing<NET>>::to("sneaked")).is_none());
        }
        let mut changes = Vec::new();
        changes.extend(Change::if_differs("tags", &found.tags, &self.tags, Change::in_place));
        changes.extend(Change::if_differs("size", &found.size, &self.size, Change::replace));
        changes.extend(Change::if_differs("range", &found.range, &self.range, Change::refuse));
        // What it needs may be yet to be made.
        if let Ok(uses) = ids(&self.needs, cx) {
            changes.extend((uses != found.uses).then(|| Change::in_place("uses", found.uses.join(" "), uses.join(" "))));
        }
        changes
    }

    async fn create(&self, cx: &Cx<'_, World>) -> Result<Stored> {
        if self.sneaks {
            cx.get(&Ref::<Thing<NET>>::to("sneaked"))?;
        }
        let uses = ids(&self.needs, cx)?;
        if let Some((_, barrier)) = cx.cloud.meet.as_ref().filter(|(names, _)| names.contains(&self.name.as_str())) {
            barrier.wait().await;
        }
        cx.cloud.does("create", &self.name)?;
        tokio::task::yield_now().await;
        let mut things = cx.cloud.things.lock().unwrap();
        let id = (1..).map(|n| format!("{}-{n}", self.name)).find(|id| !things.contains_key(id)).unwrap();
        let stored = self.stored(id.clone(), uses);
        things.insert(id, stored.clone());
        cx.cloud.log.lock().unwrap().push(format!("created {}", self.name));
        Ok(stored)
    }

    async fn update(&self, found: &Stored, changes: &[Change], cx: &Cx<'_, World>) -> Result<Stored> {
        assert!(changes.iter().all(|c| c.effect == Effect::InPlace));
        cx.cloud.does("update", &self.name)?;
        let stored = self.stored(found.id.clone(), ids(&self.needs, cx)?);
        cx.cloud.things.lock().unwrap().insert(found.id.clone(), stored.clone());
        Ok(stored)
    }

    async fn list(world: &World) -> Result<Vec<Stored>> {
        let mut things: Vec<Stored> = world.things.lock().unwrap().values().filter(|t| t.kind == NAMES[K]).cloned().collect();
        // In no order that means anything, as a cloud lists.
        things.reverse();
        Ok(things)
    }

    async fn delete(world: &World, found: &Stored) -> Result<()> {
        world.does("delete", &found.id)?;
        let mut things = world.things.lock().unwrap();
        if let Some(user) = things.values().find(|t| t.uses.contains(&found.id)) {
            return Err(Error::new(format!("{} is in use by {}", found.id, user.id)));
        }
        things.remove(&found.id);
        Ok(())
    }
}

/// Two machines, each with a disk, on two parts of one net; added in no helpful order.
fn cluster() -> Graph<World> {
    sized(1, 1)
}

fn sized(part: u32, machine: u32) -> Graph<World> {
    let (net, parts) = (Ref::<Thing<NET>>::to("net"), [Ref::<Thing<PART>>::to("a"), Ref::<Thing<PART>>::to("b")]);
    let mut graph = Graph::new();
    for (n, to) in parts.iter().enumerate() {
        let disk = Ref::<Thing<DISK>>::to(format!("disk-{n}"));
        graph.add(Thing::<MACHINE> { size: machine, ..thing(&format!("machine-{n}")) }.on(to).on(&disk));
        graph.add(thing::<DISK>(&format!("disk-{n}")));
    }
    for (name, size) in [("a", part), ("b", 1)] {
        graph.add(Thing::<PART> { size, ..thing(name) }.on(&net));
    }
    graph.add(thing::<NET>("net"));
    graph
}

async fn plan(graph: Graph<World>, world: &World) -> Result<Plan<World>> {
    plan_with(graph, world, |_| false).await
}

async fn plan_with(graph: Graph<World>, world: &World, replace: impl Fn(&Address) -> bool) -> Result<Plan<World>> {
    Plan::new(graph, list_all(&KINDS, world).await?, world, replace)
}

async fn up(graph: Graph<World>, world: &World) -> Result<apply::Made> {
    let plan = plan(graph, world).await?;
    let report = Report::silent();
    let work = apply(&plan, &KINDS, world, &report);
    tokio::time::timeout(Duration::from_secs(10), work).await.expect("it ends")
}

fn verbs(plan: &Plan<World>) -> Vec<(Verb, String)> {
    plan.items.iter().filter(|i| i.verb != Verb::Keep).map(|i| (i.verb, i.address.to_string())).collect()
}

fn at(log: &[String], what: &str) -> usize {
    log.iter().position(|l| l == what).unwrap_or_else(|| panic!("no `{what}` in {log:?}"))
}

#[tokio::test]
async fn things_are_made_after_what_they_need_and_a_second_plan_is_empty() {
    let world = World::new();
    let first = plan(cluster(), &world).await.unwrap();
    let order: Vec<String> = first.items.iter().map(|i| i.address.to_string()).collect();
    assert_eq!(order, ["disk disk-0", "disk disk-1", "net net", "part a", "part b", "machine machine-0", "machine machine-1"]);
    assert!(first.items.iter().all(|i| i.verb == Verb::Create && i.reason() == "not there yet"));
    assert!(!first.is_empty());

    let made = apply(&first, &KINDS, &world, &Report::silent()).await.unwrap();
    let log = world.log();
    for (after, before) in [("a", "net"), ("b", "net"), ("machine-0", "a"), ("machine-0", "disk-0"), ("machine-1", "b")] {
        assert!(
            at(&log, &format!("create {after}")) > at(&log, &format!("created {before}")),
            "{after} before {before}: {log:?}"
        );
    }
    assert_eq!(made.len(), 7);
    assert_eq!(made.values().find(|e| e.address.name == "a").unwrap().id, "a-1");

    let second = plan(cluster(), &world).await.unwrap();
    assert!(second.is_empty(), "{:?}", verbs(&second));
    let kept = apply(&second, &KINDS, &world, &Report::silent()).await.unwrap();
    assert_eq!(kept.len(), 7, "what was kept is among what stands");
    assert_eq!(world.log(), Vec::<String>::new());
}

#[tokio::test]
async fn what_does_not_need_each_other_is_made_at_the_same_time() {
    // Each of the four waits for the other three: one after the other they would never end.
    let names = vec!["disk-0", "disk-1", "a", "b"];
    let world = World { meet: Some((names, Barrier::new(4))), ..World::new() };
    up(cluster(), &world).await.unwrap();
    assert_eq!(world.names().len(), 7);
}

#[tokio::test]
async fn after_a_failure_nothing_is_begun_and_what_runs_is_awaited() {
    let world = World::new();
    world.broken.lock().unwrap().push("create net");
    let error = up(cluster(), &world).await.unwrap_err();
    assert_eq!(error.what, "net net could not be made");
    assert_eq!(
        (error.why.as_slice(), error.hints.as_slice()),
        (&["net broke".into(), "no luck".into()][..], &["mend net".into()][..])
    );
    let log = world.log();
    assert!(log.contains(&"created disk-1".into()), "it was under way: {log:?}");
    assert!(!log.iter().any(|l| l.contains("machine") || l == "create a"), "{log:?}");

    *world.broken.lock().unwrap() = vec!["create disk-2"];
    let mut graph = cluster();
    graph.add(thing::<DISK>("disk-2"));
    up(graph, &world).await.unwrap_err();
    let log = world.log();
    assert!(
        log.contains(&"created net".into()) && !log.contains(&"create a".into()),
        "it could be, but is not begun any more: {log:?}"
    );

    world.broken.lock().unwrap().clear();
    up(cluster(), &world).await.unwrap();
    assert_eq!(world.names().len(), 7, "the second call goes on, and makes nothing twice");
}

#[tokio::test]
async fn all_failures_are_told_with_all_that_can_be_done() {
    let world = World { meet: Some((vec!["a", "b"], Barrier::new(2))), ..World::new() };
    world.broken.lock().unwrap().extend(["create a", "create b"]);
    let error = up(cluster(), &world).await.unwrap_err();
    let text = error.to_string();
    let (first, second) = if error.what.starts_with("part a") { ("a", "b") } else { ("b", "a") };
    assert_eq!(error.what, format!("part {first} could not be made"));
    assert!(error.why.contains(&format!("also: part {second} could not be made: {second} broke: no luck")), "{text}");
    assert_eq!(error.hints, [format!("mend {first}"), format!("mend {second}")]);
}

#[tokio::test]
async fn changes_in_place_are_made_and_dependents_stay() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    world.log();
    let mut graph = cluster_without(&["net net"]);
    graph.add(Thing::<NET> { tags: 2, ..thing("net") });
    let plan = plan(graph, &world).await.unwrap();
    assert_eq!(verbs(&plan), [(Verb::Update, "net net".into())]);
    assert_eq!(plan.items.iter().find(|i| i.verb == Verb::Update).unwrap().reason(), "tags: 1 → 2");
    apply(&plan, &KINDS, &world, &Report::silent()).await.unwrap();
    assert_eq!(world.log(), ["update net"]);
}

/// [`cluster`] without some.
fn cluster_without(addresses: &[&str]) -> Graph<World> {
    let mut graph = Graph::new();
    graph.nodes = cluster().into_nodes().into_iter().filter(|n| !addresses.contains(&n.address().to_string().as_str())).collect();
    graph
}

#[tokio::test]
async fn what_is_no_longer_wanted_goes_users_first_after_the_rest_is_made() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    world.log();
    let mut graph = cluster_without(&["machine machine-1", "disk disk-1", "part b"]);
    graph.add(thing::<DISK>("disk-2"));
    let plan = plan(graph, &world).await.unwrap();
    let expected = [
        (Verb::Create, "disk disk-2"),
        (Verb::Delete, "disk disk-1"),
        (Verb::Delete, "machine machine-1"),
        (Verb::Delete, "part b"),
    ];
    assert_eq!(verbs(&plan), expected.map(|(v, a)| (v, a.to_owned())));
    assert!(plan.items.iter().filter(|i| i.verb == Verb::Delete).all(|i| i.reason() == "no longer wanted"));
    let made = apply(&plan, &KINDS, &world, &Report::silent()).await.unwrap();
    let log = world.log();
    assert!(at(&log, "created disk-2") < at(&log, "delete machine-1-1"), "{log:?}");
    assert!(at(&log, "delete machine-1-1") < at(&log, "delete b-1"), "{log:?}");
    assert_eq!((made.len(), world.names().len()), (5, 5));
}

#[tokio::test]
async fn of_two_with_one_name_the_one_that_fits_stays() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    // More nets of the same name, and a part in one of them: listed before and after the one that all is built on.
    for id in ["0-net", "z-net"] {
        world.put(id, NET, "net", &[]);
        world.things.lock().unwrap().get_mut(id).unwrap().tags = 7;
    }
    world.put("0-a", PART, "a", &["0-net"]);
    world.log();
    let grown = || {
        let mut graph = cluster();
        graph.add(thing::<PART>("c").on(&Ref::<Thing<NET>>::to("net")));
        graph
    };
    let plan = plan(grown(), &world).await.unwrap();
    let doubles = ["net net", "net net", "part a"].map(|a| (Verb::Delete, a.to_owned()));
    assert_eq!(verbs(&plan), [&[(Verb::Create, "part c".to_owned())], &doubles[..]].concat());
    assert_eq!(plan.items.last().unwrap().reason(), "a second one of this name");
    let made = apply(&plan, &KINDS, &world, &Report::silent()).await.unwrap();
    let log = world.log();
    assert_eq!(
        log.iter().filter(|l| l.starts_with("delete")).collect::<Vec<_>>(),
        ["delete 0-a", "delete 0-net", "delete z-net"]
    );
    assert_eq!(made.values().find(|e| e.address.name == "net").unwrap().id, "net-1");
    assert_eq!(world.things.lock().unwrap()["c-1"].uses, ["net-1"], "what is new is built on the one that stays");
    assert!(self::plan(grown(), &world).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_made_anew_needs_a_word_and_takes_its_users_along() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    world.log();
    let error = plan(sized(2, 1), &world).await.err().unwrap();
    assert_eq!(error.kind, Failure::Usage);
    assert_eq!(error.why, ["part a, size: 1 → 2\nmachine machine-0, part a: as it is → made anew"]);
    assert_eq!(error.hints[0], "add `--replace part/a --replace machine/machine-0` to remove these and make them again");

    let plan = plan_with(sized(2, 1), &world, |_| true).await.unwrap();
    assert_eq!(verbs(&plan), [(Verb::Replace, "part a".into()), (Verb::Replace, "machine machine-0".into())]);
    let made = apply(&plan, &KINDS, &world, &Report::silent()).await.unwrap();
    assert_eq!(
        world.log(),
        ["delete machine-0-1", "delete a-1", "create a", "created a", "create machine-0", "created machine-0"]
    );
    assert_eq!(made.len(), 7);
    assert!(self::plan(sized(2, 1), &world).await.unwrap().is_empty());
}

#[tokio::test]
async fn one_thing_alone_can_be_made_anew() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    let error = plan_with(sized(1, 2), &world, |a| a.name == "machine-0").await.err().unwrap();
    assert_eq!(error.why, ["machine machine-1, size: 1 → 2"]);
    // An old one that can't go stays, and nothing is made in its place.
    world.broken.lock().unwrap().push("delete machine-0-1");
    let plan = plan_with(sized(1, 2), &world, |_| true).await.unwrap();
    let error = apply(&plan, &KINDS, &world, &Report::silent()).await.unwrap_err();
    assert_eq!(error.what, "what is to be made anew could not be removed");
    assert_eq!(error.why, ["machine machine-0 (machine-0-1): machine-0-1 broke: no luck"]);
}

#[tokio::test]
async fn what_can_never_change_is_named_all_at_once() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    let mut graph = cluster_without(&["net net", "disk disk-0"]);
    graph.add(Thing::<NET> { range: 2, ..thing("net") });
    graph.add(Thing::<DISK> { range: 3, ..thing("disk-0") });
    let error = plan_with(graph, &world, |_| true).await.err().unwrap();
    assert_eq!(error.kind, Failure::Usage);
    assert_eq!(error.why, ["net net, range: 1 → 2\ndisk disk-0, range: 1 → 3"]);
    assert!(world.names().len() == 7);
}

#[tokio::test]
async fn a_need_that_was_not_declared_is_named_when_comparing_and_when_making() {
    let world = World::new();
    let sneaky = || {
        let mut graph = Graph::new();
        graph.add(thing::<NET>("sneaked"));
        graph.add(Thing::<PART> { sneaks: true, ..thing("a") });
        graph
    };
    let error = up(sneaky(), &world).await.unwrap_err();
    assert_eq!(error.why, ["part a uses net sneaked without having declared it", "this is a mistake in kup"]);
    world.put("a-1", PART, "a", &[]);
    let error = plan(sneaky(), &world).await.err().unwrap();
    assert_eq!(error.what, "part a uses net sneaked without having declared it");
}

#[tokio::test]
async fn graphs_that_can_not_be_are_refused() {
    let world = World::new();
    let mut twice = cluster();
    twice.add(thing::<NET>("net"));
    assert_eq!(plan(twice, &world).await.err().unwrap().what, "net net is wanted twice");
    let missing = plan(cluster_without(&["net net"]), &world).await.err().unwrap();
    assert!(missing.what.ends_with("part a, part b") && missing.what.contains("machine machine-0"), "{missing}");
    let (mut circle, a, b) = (Graph::new(), Ref::<Thing<NET>>::to("a"), Ref::<Thing<NET>>::to("b"));
    circle.add(thing::<NET>("a").on(&b));
    circle.add(thing::<NET>("b").on(&a));
    assert!(plan(circle, &world).await.err().unwrap().what.ends_with("net a, net b"));
}

#[tokio::test]
async fn the_table_of_kinds_must_name_each_need() {
    assert_eq!(check_kinds(&cluster(), &KINDS), Ok(()));
    let mut graph = cluster();
    graph.add(thing::<DISK>("disk-9").on(&Ref::<Thing<NET>>::to("net")));
    let error = check_kinds(&graph, &KINDS).unwrap_err();
    assert_eq!(error.what, "disk disk-9 needs net net, but its kind's row does not name the kind net");
    let error = check_kinds(&cluster(), &KINDS[..2]).unwrap_err();
    assert!(error.what.ends_with("is of a kind that is not in the table of kinds"), "{error}");
}

#[tokio::test]
async fn a_sweep_goes_the_other_way_with_no_wanted_thing_at_hand() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    world.log();
    let left = sweep(list_all(&KINDS, &world).await.unwrap(), &KINDS, &world, &Report::silent()).await;
    assert!(left.is_empty(), "{left:?}");
    let log = world.log();
    for (after, before) in [("net-1", "a-1"), ("net-1", "b-1"), ("a-1", "machine-1-1"), ("disk-0-1", "machine-0-1")] {
        assert!(at(&log, &format!("delete {after}")) > at(&log, &format!("delete {before}")), "{log:?}");
    }
    assert_eq!(world.names(), Vec::<String>::new());
    assert!(!log.contains(&STAYS.to_owned()), "{log:?}");
}

#[tokio::test]
async fn a_kind_whose_users_could_not_all_go_is_tried_all_the_same() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    world.broken.lock().unwrap().push("delete machine-0-1");
    world.log();
    let left = sweep(list_all(&KINDS, &world).await.unwrap(), &KINDS, &world, &Report::silent()).await;
    let log = world.log();
    // Said once the machines have been tried, so that what they use is not waited for in vain.
    assert!(at(&log, STAYS) < at(&log, "delete b-1"), "{log:?}");
    let mut names: Vec<String> = left.iter().map(|l| format!("{} {}", l.kind, l.id)).collect();
    names.sort();
    assert_eq!(names, ["disk disk-0-1", "machine machine-0-1", "net net-1", "part a-1"]);
    assert_eq!(world.names(), ["a", "disk-0", "machine-0", "net"], "the other machine, its disk and its part are gone");
    let error = Left::error(&left, "not all of it is gone");
    assert!(error.why.contains(&"part a (a-1): a-1 is in use by machine-0-1".into()), "{error}");
    assert_eq!(error.hints, ["mend machine-0-1"]);
}

#[tokio::test]
async fn what_is_of_no_known_kind_is_left_and_named() {
    let world = World::new();
    up(cluster(), &world).await.unwrap();
    let entries = list_all(&KINDS, &world).await.unwrap();
    let left = sweep(entries, &KINDS[2..], &world, &Report::silent()).await;
    assert_eq!(left.len(), 3, "{left:?}");
    assert_eq!(world.names(), ["a", "b", "net"]);
}

#[tokio::test]
async fn each_kind_is_a_step_and_each_thing_says_what_released_it() {
    use crate::report::event::Event;
    let world = World::new();
    let (report, mut events) = Report::channel();
    let plan = plan(cluster(), &world).await.unwrap();
    apply(&plan, &KINDS, &world, &report).await.unwrap();
    drop(report);
    let (mut steps, mut names, mut open) = (Vec::new(), BTreeMap::new(), 0);
    let mut released = BTreeMap::new();
    while let Some(event) = events.recv().await {
        match event {
            Event::Started { id, parent: None, title, of, .. } => {
                assert_eq!(of, "resource");
                names.insert(id, title.clone());
                steps.push(title);
                open += 1;
            }
            Event::Started { id, title, released_by, .. } => {
                names.insert(id, title.clone());
                released.insert(title, released_by);
                open += 1;
            }
            Event::Done { .. } => open -= 1,
            other => panic!("{other:?}"),
        }
    }
    steps.sort();
    assert_eq!(
        (steps, open),
        (vec!["disk".into(), "machine".into(), "net".into(), "part".into()], 0),
        "each once, and each ended"
    );
    let by = |name: &str| released[name].map(|id| names[&id].clone());
    assert_eq!((by("net"), by("a")), (None, Some("net".into())));
    assert!(["a", "disk-0"].contains(&by("machine-0").unwrap().as_str()));
}
