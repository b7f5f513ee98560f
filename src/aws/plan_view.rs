//! A plan for AWS as people and programs read it: what is done with each thing, why, what that costs, and how long it may take.

use std::fmt::Write as _;

use serde::Serialize;

use super::Aws;
use super::layout::Surroundings;
use super::prices::{Cost, Item, Prices, Usage, usage};
use super::resource::instance::Instance;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::graph::{Change, Entry, Plan, Resource as _, Verb};
use crate::report::tree::duration;

/// The parts of a cluster, in the order in which a plan shows them, each with its kinds.
const AREAS: [(&str, &[&str]); 6] = [
    (
        "Network",
        &["vpc", "given vpc", "dhcp options", "subnet", "given subnet", "internet gateway", "route table", "s3 endpoint"],
    ),
    ("Access", &["security group", "security group rules", "key pair"]),
    ("Identity", &["operator policy", "operator user", "access key", "role", "instance profile"]),
    ("Storage", &["bucket", "volume"]),
    ("Masters", &["network interface", "elastic ip", "load balancer", "target group", "listener", "instance"]),
    ("Minions", &["launch template", "auto scaling group"]),
];

/// A plan, as JSON shows it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// Each thing, wanted ones in an order in which each comes after what it needs.
    pub actions: Vec<Line>,
    /// What the cluster costs while it stands as wanted.
    pub cost: Sum,
    /// How long it took before to make all of it, or to find that nothing is to do; none if that is not known.
    pub expected_seconds: Option<f64>,
}

/// What is done with one thing.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What is done.
    pub verb: Verb,
    /// The kind of thing.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// By which AWS knows it, if it is there.
    pub id: Option<String>,
    /// Why.
    pub reason: String,
    /// What it is or will be like.
    pub detail: String,
    /// How it differs from what is wanted.
    pub changes: Vec<Change>,
    /// US dollars an hour; none if it is not paid by the hour, or has a part without a known price.
    pub cost_per_hour: Option<f64>,
    /// The same for 730 hours.
    pub cost_per_month: Option<f64>,
    #[serde(skip)]
    cost: Cost,
}

/// What the cluster costs while it stands as wanted. Traffic, requests and what is in the bucket come on top.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sum {
    /// US dollars an hour, for all that has a known price.
    pub per_hour: f64,
    /// The same for 730 hours.
    pub per_month: f64,
    /// What has no known price.
    pub unknown: Vec<String>,
    /// The day of the oldest of the prices.
    pub as_of: Option<String>,
    /// Where they hold.
    pub region: String,
    #[serde(skip)]
    words: String,
}

/// The fewest columns that what a thing is like is written in, however narrow the screen.
const NARROWEST: usize = 24;
/// The fewest columns on which each thing's cost a month has a place beside that an hour.
const WIDE: usize = 100;

/// A text in lines of at most `room` columns, where its words allow it; at least one line.
fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 && used + 1 + length > room {
            lines.push(String::new());
            used = 0;
        }
        if let Some(line) = lines.last_mut() {
            if used > 0 {
                line.push(' ');
                used += 1;
            }
            line.push_str(word);
            used += length;
        }
    }
    lines
}

/// A master that stays is paid for as the type that it is, which need not be the first of those that it may be.
fn as_found(usage: &mut [Usage], found: &Entry) {
    if found.address.kind == Instance::KIND
        && let Ok(instance) = found.value::<Instance>()
    {
        for part in usage.iter_mut().filter(|part| matches!(part.item, Item::Instance(_))) {
            part.item = Item::Instance(instance.instance_type.clone());
        }
    }
}

/// To a ten-thousandth of a cent: sums of floats have longer tails than anybody is charged for.
fn rounded(usd: f64) -> f64 {
    (usd * 1e6).round() / 1e6
}

/// To a cent.
fn cents(usd: f64) -> f64 {
    (usd * 100.0).round() / 100.0
}

impl View {
    /// Of this plan. Pure, but for the table of prices that is compiled in.
    pub fn of(plan: &Plan<Aws>, cluster: &Cluster, around: &Surroundings, expected_seconds: Option<f64>) -> Result<View> {
        let (prices, mut billed, mut sum) = (Prices::in_region(&around.region)?, usage(cluster, around), Cost::default());
        let mut actions = Vec::with_capacity(plan.items.len());
        for item in &plan.items {
            // What goes has the address of something billed only if it is a double.
            let mut usage = if item.verb == Verb::Delete { None } else { billed.remove(&item.address) };
            if let (Some(usage), Some(found), Verb::Keep | Verb::Update) = (&mut usage, &item.found, item.verb) {
                as_found(usage, found);
            }
            let cost = usage.map(|usage| Cost::of(&usage, &prices)).unwrap_or_default();
            sum.add(&cost);
            let known = cost.per_hour > 0.0 && cost.unknown.is_empty();
            actions.push(Line {
                verb: item.verb,
                kind: item.address.kind,
                name: item.address.name.clone(),
                id: item.found.as_ref().map(|found| found.id.clone()),
                reason: item.reason(),
                detail: item.detail.clone(),
                changes: item.changes.clone(),
                cost_per_hour: known.then(|| rounded(cost.per_hour)),
                cost_per_month: known.then(|| cents(cost.per_month())),
                cost,
            });
        }
        let words = match sum.per_hour <= 0.0 && !sum.unknown.is_empty() {
            true => "has an unknown price".to_owned(),
            false => format!("costs {}", sum.words()),
        };
        let cost = Sum {
            per_hour: rounded(sum.per_hour),
            per_month: cents(sum.per_month()),
            unknown: sum.unknown,
            as_of: sum.as_of,
            region: around.region.clone(),
            words,
        };
        Ok(View { actions, cost, expected_seconds })
    }

    /// Whether anything is done.
    pub fn is_empty(&self) -> bool {
        self.actions.iter().all(|line| line.verb == Verb::Keep)
    }

    /// `31 to create, 1 to delete`, or that there is nothing.
    fn counts(&self) -> String {
        let verbs = [Verb::Create, Verb::Update, Verb::Replace, Verb::Delete];
        let count = |verb: Verb| self.actions.iter().filter(|line| line.verb == verb).count();
        let parts: Vec<String> =
            verbs.into_iter().filter(|v| count(*v) > 0).map(|v| format!("{} to {}", count(v), v.word())).collect();
        if parts.is_empty() { "Nothing to change".to_owned() } else { parts.join(", ") }
    }

    /// As people read it, on a screen of that many columns; what a plan keeps is only counted unless `kept`.
    pub fn text(&self, columns: Option<usize>, kept: bool) -> String {
        let mut text = String::new();
        let shown = self.actions.iter().filter(|line| kept || line.verb != Verb::Keep);
        let months = columns.is_none_or(|columns| columns >= WIDE);
        let rows: Vec<(&str, [String; 5])> = shown.map(|line| (area(line.kind), line.cells(months))).collect();
        let width = |column: usize| rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or_default();
        let widths: [usize; 4] = std::array::from_fn(width);
        // Two spaces before each column; what things are like comes last, since it may be long.
        let before = widths.iter().map(|width| width + 2).sum::<usize>() + 2;
        let room = columns.map_or(usize::MAX, |columns| columns.saturating_sub(before).max(NARROWEST));
        for (title, _) in AREAS.iter().chain(&[("Else", &[][..])]) {
            let mut rows = rows.iter().filter(|(area, _)| area == title).map(|(_, cells)| cells).peekable();
            if rows.peek().is_some() {
                let _ = writeln!(text, "{title}");
            }
            for [first @ .., detail] in rows {
                let first: Vec<String> = first.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
                let mut head = format!("  {}  ", first.join("  "));
                for line in wrapped(detail, room) {
                    let _ = writeln!(text, "{}", format!("{head}{line}").trim_end());
                    head = " ".repeat(before);
                }
            }
        }
        let keeps = self.actions.iter().filter(|line| line.verb == Verb::Keep).count();
        if !kept && keeps > 0 {
            let _ = writeln!(text, "{keeps} more {} as wanted", if keeps == 1 { "is" } else { "are" });
        }
        let _ = write!(text, "\n{}; the cluster {}", self.counts(), self.cost.words);
        let dated = self.cost.as_of.as_ref().map(|date| format!(" (list prices of {} from {date} on)", self.cost.region));
        let _ = writeln!(text, "{}.", dated.unwrap_or_default());
        if !self.cost.unknown.is_empty() {
            let _ = writeln!(text, "Unknown, and not in that: {} in {}.", self.cost.unknown.join(", "), self.cost.region);
        }
        let _ = writeln!(text, "Traffic, requests and what is stored in the bucket come on top; they are not estimated.");
        let expected = self.expected_seconds.map(duration);
        match expected.as_deref().or((!self.is_empty()).then_some("unknown, there was no such run from here yet")) {
            Some(time) => {
                let _ = write!(text, "Expected time: {time}.");
            }
            // Nobody waits for nothing.
            None => text.truncate(text.trim_end().len()),
        }
        text
    }
}

impl Line {
    /// Verb, kind, name, its cost (`months`: a month, too), and what it is like and why.
    fn cells(&self, months: bool) -> [String; 5] {
        let reason = if self.verb == Verb::Create { "" } else { &self.reason };
        let parts =
            [self.detail.as_str(), reason, if self.verb == Verb::Delete { self.id.as_deref().unwrap_or_default() } else { "" }];
        let detail: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let cost = match (self.cost.per_hour > 0.0, self.cost.unknown.is_empty()) {
            (true, true) if months => {
                format!("${:.4}/h {:>7}/month", self.cost.per_hour, format!("${:.2}", self.cost.per_month()))
            }
            (true, true) => format!("${:.4}/h", self.cost.per_hour),
            (true, false) => format!("${:.4}/h or more", self.cost.per_hour),
            (false, true) => String::new(),
            (false, false) => "unknown".to_owned(),
        };
        [self.verb.word().to_owned(), self.kind.to_owned(), self.name.clone(), cost, detail.join("; ")]
    }
}

fn area(kind: &str) -> &'static str {
    AREAS.iter().find(|(_, kinds)| kinds.contains(&kind)).map_or("Else", |(title, _)| title)
}
