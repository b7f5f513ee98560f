//! `kup status`: whether everything of a cluster is well, and what to do about what isn't.

use std::fmt::Write as _;

use console::style;

use super::Ui;
use super::nodes::table;
use super::target::TargetArgs;
use crate::error::{Error, Kind, Result};
use crate::provider::ClusterId;
use crate::standing::{Standing, both, short};
use crate::status::{Etcd, MachineStatus, Severity, Status};

/// Characters of a line of a journal that are shown.
const LINE: usize = 200;
/// The width that the short form keeps to.
const WIDTH: usize = 80;

/// Say how a cluster is: every machine, unit, certificate and Node, the API and DNS
///
/// Exits with 3 if anything is not well; what that is, and what to type, is said.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// Also show every unit and every certificate's dates
    #[arg(short, long)]
    wide: bool,
}

/// Runs it.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    let target = args.target.require(ui).await?;
    let standing = Standing::of(&target.id, &target.provider).await?;
    let status = of(&standing, ui).await;
    if ui.json {
        ui.result(&status)?;
    } else {
        ui.print(render(&status, args.wide, ui.colour).trim_end());
    }
    if status.healthy {
        return Ok(());
    }
    let names: Vec<&str> = status.failing().map(|p| p.what.as_str()).collect();
    Err(Error::new(format!("cluster {} is not well", status.cluster)).why(names.join("\n")).kind(Kind::Unhealthy))
}

/// How a cluster is, with what to type about this very cluster.
pub(super) async fn of(standing: &Standing, ui: &Ui) -> Status {
    let (mut status, same) = (Status::of(standing).await, ui.same());
    for problem in &mut status.problems {
        problem.next = problem.next.take().map(|next| same.complete(&next));
    }
    status
}

/// A status as text: short if all is well, else with what isn't.
pub(super) fn render(status: &Status, wide: bool, colour: bool) -> String {
    let id = ClusterId { provider: status.provider, name: status.cluster.clone() };
    let word = if status.healthy { style("is well").green() } else { style("is not well").red() }.bold().force_styling(colour);
    let mut text =
        format!("Cluster {} ({}, Kubernetes {}) {word}.\n\n", status.cluster, status.provider.as_str(), status.version);
    let rows = status.machines.iter().map(|m| machine_row(m, status, &id));
    let _ = writeln!(text, "{}\n", table(["MACHINE", "ADDRESS", "UNITS", "NODE", "DISK", "CERTIFICATES UNTIL"], rows));
    let components = status.components.iter().map(|c| format!("{} {}/{}", c.name, c.well, c.of));
    for line in wrapped(components, WIDTH) {
        let _ = writeln!(text, "{line}");
    }
    if let Some(etcd) = &status.etcd {
        let _ = writeln!(text, "{}", etcd_line(etcd, &id));
    }
    if wide {
        let _ = write!(text, "\n{}\n\n{}\n", units(status, &id), certificates(status, &id));
    }
    for problem in &status.problems {
        let mark = match problem.severity {
            Severity::Failing => style("✗").red(),
            Severity::Warning => style("!").yellow(),
        };
        let _ = writeln!(text, "\n{} {}", mark.bold().force_styling(colour), problem.what);
        for line in problem.why.iter().flat_map(|w| w.lines()) {
            let _ = writeln!(text, "    {}", line.chars().take(LINE).collect::<String>());
        }
        if let Some(next) = &problem.next {
            let _ = writeln!(text, "  next: {next}");
        }
    }
    text
}

/// `etcd: 3 of 3 members answer (2 are needed), leader master-2, 21 MiB`
fn etcd_line(etcd: &Etcd, id: &ClusterId) -> String {
    let leader = etcd.leader.as_deref().map_or_else(|| "no leader".to_owned(), |name| format!("leader {}", short(id, name)));
    let bytes = etcd.members.iter().filter_map(|m| m.db_bytes).max().unwrap_or_default();
    let (answering, all) = (etcd.answering(), etcd.members.len());
    format!("etcd: {answering} of {all} members answer ({} needed), {leader}, {} MiB", etcd.quorum, bytes.div_ceil(1 << 20))
}

fn machine_row(machine: &MachineStatus, status: &Status, id: &ClusterId) -> [String; 6] {
    let unknown = || "-".to_owned();
    let node = match (&status.api.nodes, status.api.node(&machine.name)) {
        _ if !machine.role.is_node() => unknown(),
        (None, _) => "unknown".to_owned(),
        (_, None) => "missing".to_owned(),
        (_, Some(node)) if !node.ready => "NotReady".to_owned(),
        (_, Some(node)) if node.cordoned => "Ready, cordoned".to_owned(),
        _ => "Ready".to_owned(),
    };
    let units = if !machine.running {
        "stopped".to_owned()
    } else if machine.unreachable.is_some() {
        "no answer".to_owned()
    } else {
        format!("{}/{}", machine.units.iter().filter(|u| u.well()).count(), machine.units.len())
    };
    [
        both(id, &machine.name, machine.called.as_deref()),
        machine.address.to_string(),
        units,
        node,
        machine.disks.iter().map(crate::status::Disk::used_percent).max().map_or_else(unknown, |p| format!("{p} %")),
        machine.first_to_end().map_or_else(unknown, |c| format!("{} ({} days)", c.last_day(), c.days_left)),
    ]
}

fn units(status: &Status, id: &ClusterId) -> String {
    let rows = status.machines.iter().flat_map(|machine| {
        machine.units.iter().map(|unit| {
            let health = match unit.health {
                None => "-".to_owned(),
                Some(200) => "ok".to_owned(),
                Some(0) => "no answer".to_owned(),
                Some(code) => code.to_string(),
            };
            let up = unit.up_seconds.filter(|_| unit.active == "active").map_or_else(|| "-".to_owned(), age);
            [
                machine.called.as_deref().unwrap_or_else(|| short(id, &machine.name)).to_owned(),
                unit.name.clone(),
                format!("{} ({})", unit.active, unit.sub),
                health,
                up,
                unit.restarts.to_string(),
            ]
        })
    });
    table(["MACHINE", "UNIT", "STATE", "HEALTH", "UP FOR", "RESTARTS"], rows)
}

fn certificates(status: &Status, id: &ClusterId) -> String {
    let rows = status.machines.iter().flat_map(|machine| {
        machine.certificates.iter().map(|certificate| {
            let file = certificate.path.rsplit('/').next().unwrap_or_default();
            [
                machine.called.as_deref().unwrap_or_else(|| short(id, &machine.name)).to_owned(),
                file.to_owned(),
                certificate.last_day().to_owned(),
                certificate.days_left.to_string(),
            ]
        })
    });
    table(["MACHINE", "CERTIFICATE", "UNTIL", "DAYS"], rows)
}

/// A duration in its largest unit.
fn age(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Parts joined by commas into lines of at most `width` characters.
fn wrapped(parts: impl IntoIterator<Item = String>, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() + 3 <= width => {
                line.push_str(", ");
                line.push_str(&part);
            }
            Some(line) => {
                line.push(',');
                lines.push(part);
            }
            None => lines.push(part),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_to_the_width_and_lose_nothing() {
        let parts: Vec<String> = (0..40).map(|n| format!("part {n}")).collect();
        let lines = wrapped(parts.clone(), 80);
        assert!(lines.iter().all(|l| l.chars().count() <= 80), "{lines:#?}");
        assert_eq!(lines.join(" "), parts.join(", "));
    }

    #[test]
    fn ages_are_short() {
        assert_eq!([age(3), age(120), age(7200), age(200_000)], ["3 s", "2 min", "2 h", "2 days"]);
    }
}
