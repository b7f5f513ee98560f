//! scripts/prices against a small list in the form of AWS's own: from it comes what the plan reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kup::aws::prices::{Item, Prices};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(base: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(root().join("scripts/prices"));
    command.arg("--from").arg(base).args(arguments).output().expect("python3 runs it")
}

/// The list, with something in one of its files replaced.
fn changed(offer: &str, from: &str, to: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    for each in ["AmazonEC2", "AmazonVPC", "AWSELB"] {
        let path = format!("offers/v1.0/aws/{each}/current/us-west-2/index.csv");
        let text = fs::read_to_string(root().join("tests/prices").join(&path)).unwrap();
        assert!(each != offer || text.contains(from), "{from}");
        let target = dir.path().join(&path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::write(&target, if each == offer { text.replace(from, to) } else { text }).unwrap();
    }
    let path = dir.path().to_owned();
    (dir, path)
}

fn fails(base: &Path, part: &str) {
    let output = run(base, &["us-west-2"]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(part), "`{part}` is not in: {said}");
    assert!(output.stdout.is_empty(), "no half a table");
}

#[test]
fn the_table_is_made_from_the_rows_that_are_meant_and_no_others() {
    let output = run(&root().join("tests/prices"), &["us-west-2"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let prices = Prices::read(&text, "us-west-2").unwrap();
    let of = |item: Item| prices.of(&item).map(|p| (p.usd, p.date.clone()));
    let day = |usd: f64, date: &str| Some((usd, date.to_owned()));
    assert_eq!(of(Item::Instance("t3.small".into())), day(0.0208, "2026-11-20"));
    assert_eq!(of(Item::Instance("t3.medium".into())), day(0.0416, "2026-11-20"), "neither reserved nor in a local zone");
    assert_eq!(of(Item::Instance("m6i.large".into())), day(0.096, "2026-11-20"), "without software");
    assert_eq!(of(Item::Instance("p5.48xlarge".into())), None, "nobody's master or minion");
    assert_eq!(of(Item::Gp3), day(0.08, "2026-11-20"));
    assert_eq!(of(Item::PublicIpv4), day(0.005, "2026-11-19"));
    assert_eq!(of(Item::NetworkLoadBalancer), day(0.0225, "2026-11-12"));
    let source = &prices.of(&Item::Gp3).unwrap().source;
    assert_eq!(source, "https://pricing.us-east-1.amazonaws.com/offers/v1.0/aws/AmazonEC2/current/us-west-2/index.csv");
}

#[test]
fn a_file_is_replaced_at_once_or_not_at_all() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("prices.yaml");
    fs::write(&out, "as before").unwrap();
    let to = out.to_str().unwrap();
    assert_eq!(run(&root().join("tests/prices"), &["--out", to, "eu-west-9"]).status.code(), Some(1));
    assert_eq!(fs::read_to_string(&out).unwrap(), "as before");
    assert!(run(&root().join("tests/prices"), &["--out", to, "us-west-2"]).status.success());
    assert!(Prices::read(&fs::read_to_string(&out).unwrap(), "us-west-2").is_ok());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_list_that_is_not_as_it_should_be_gives_no_table() {
    let two = changed("AmazonEC2", "\"Dedicated\"", "\"Shared\"");
    fails(&two.1, "us-west-2 t3.small: two prices, 0.0208 and 0.0229");
    let none = changed("AWSELB", "LoadBalancing:Network", "LoadBalancing:Other");
    fails(&none.1, "no networkLoadBalancer of us-west-2");
    let column = changed("AmazonVPC", "\"PricePerUnit\"", "\"Price\"");
    fails(&column.1, "there is no column PricePerUnit");
    let date = changed("AmazonVPC", "2026-11-19T15:42:25Z", "soon");
    fails(&date.1, "there is no publication date");
    let gone = tempfile::tempdir().unwrap();
    fails(gone.path(), "No such file");
}
