//! What `kup iam policy` prints is enough, and none of it is too much: nothing else is called, moto's own IAM lets it through, and each
//! action that is taken away is named by what fails.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::{Value, json};

use super::story::{UP, difference, down, up};
use super::user::Account;
use super::wire::Verdict;
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;

/// One line of the table that the policy is printed from.
struct Allowed {
    action: String,
    calls: BTreeSet<String>,
    optional: bool,
}

/// The table for this cluster.
async fn table(account: &Account, name: &str) -> Check<Vec<Allowed>> {
    let said = account.kup(&["iam", "policy", "--provider", "aws", "--name", name, "--explain", "-o", "json"]).await?;
    let rows: Vec<Value> = serde_json::from_str(&said.ok("kup iam policy --explain")?)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let row = |row: &Value| Allowed {
        action: text(&row["action"]),
        calls: row["calls"].as_array().into_iter().flatten().map(text).collect(),
        optional: row["optional"] == true,
    };
    Ok(rows.iter().map(row).collect())
}

/// Whether moto's IAM counts: it can't judge conditions, and knows few resources.
async fn enforce(account: &Account, on: bool) -> Check {
    let count = if on { "0" } else { "inf" };
    let url = format!("{}/moto-api/reset-auth", account.url);
    let answer = reqwest::Client::builder().no_proxy().build()?.post(url).body(count).send().await?;
    ensure!(answer.status().is_success(), "moto answers {}", answer.status());
    Ok(())
}

/// A user who may do what the printed policy says, less one action; its key.
async fn user(account: &Account, name: &str, policy: &Value, without: &str) -> Check<(String, String)> {
    let iam = account.iam().await;
    let actions: BTreeSet<&str> = policy["Statement"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|statement| statement["Effect"] == "Allow")
        .flat_map(|statement| match &statement["Action"] {
            Value::String(one) => vec![one.as_str()],
            many => many.as_array().into_iter().flatten().filter_map(Value::as_str).collect(),
        })
        .filter(|action| *action != without)
        .collect();
    let document = json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow", "Action": actions, "Resource": "*" }] });
    iam.create_user().user_name(name).send().await?;
    iam.put_user_policy().user_name(name).policy_name("kup").policy_document(document.to_string()).send().await?;
    let key = iam.create_access_key().user_name(name).send().await?;
    let key = key.access_key().ok_or("no access key")?;
    Ok((key.access_key_id().to_owned(), key.secret_access_key().to_owned()))
}

pub async fn it_is_enough_where_iam_is_enforced(account: Account) -> Check {
    let name = "allowed";
    let printed = account.kup(&["iam", "policy", "--provider", "aws", "--name", name]).await?.ok("kup iam policy")?;
    let policy: Value = serde_json::from_str(&printed)?;
    let (key, secret) = user(&account, "somebody", &policy, "").await?;
    let (poor, poor_secret) = user(&account, "nearly", &policy, "ec2:CreateVpc").await?;
    let before = account.dump().await?;
    let run = async |(key, secret): (&str, &str), arguments: &[&str]| -> Check<Output> {
        let variables = [("AWS_ACCESS_KEY_ID", key), ("AWS_SECRET_ACCESS_KEY", secret)];
        enforce(&account, true).await?;
        let outcome = account.kup_with(&variables, arguments).await;
        enforce(&account, false).await?;
        outcome
    };
    let arguments = [&UP[..], &[name]].concat();
    let removal = ["down", "--provider", "aws", "-y", "--name", name];
    let denied = run((&poor, &poor_secret), &arguments).await?;
    ensure!(
        denied.code == Some(4) && denied.stderr.contains("ec2:CreateVpc"),
        "an action was taken away: {:?}\n{}{}",
        denied.code,
        denied.stdout,
        denied.stderr
    );
    run((&key, &secret), &arguments).await?.ok("kup up by one who may do what kup iam policy says")?;
    run((&key, &secret), &removal).await?.ok("kup down by the same")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn each_action_taken_away_is_named(account: Account) -> Check {
    let name = "denied";
    let before = account.dump().await?;
    let table = table(&account, name).await?;
    account.wire.clear();
    up(&account, name, &[]).await?.ok("kup up")?;
    let made: BTreeMap<String, usize> = account.wire.counts();
    account.wire.clear();
    down(&account, name).await?.ok("kup down")?;
    let removed: BTreeMap<String, usize> = account.wire.counts();
    // Nothing is called that the policy does not know.
    let known: BTreeSet<&str> = table.iter().flat_map(|row| row.calls.iter().map(String::as_str)).collect();
    let unknown: Vec<&String> = made.keys().chain(removed.keys()).filter(|call| !known.contains(call.as_str())).collect();
    ensure!(unknown.is_empty(), "the policy has nothing for {unknown:?}");

    for row in table.iter().filter(|row| !row.optional) {
        let Allowed { action, calls, .. } = row;
        // An action that a call of another name implies can't be told from it on the wire.
        let (makes, removes) = (made.contains_key(action), removed.contains_key(action));
        if !calls.contains(action) || !makes && !removes {
            continue;
        }
        let begun = Instant::now();
        let round = taken_away(&account, name, action, (makes, removes));
        round.await.map_err(|e| format!("without {action}, after {:.0} s: {e}", begun.elapsed().as_secs_f64()))?;
        eprintln!("without {action}: named, {:.1} s", begun.elapsed().as_secs_f64());
    }
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

/// Without this action `up` and `down`, as far as they call it, fail by its name, and do their work once they have it again.
async fn taken_away(account: &Account, name: &str, action: &str, (makes, removes): (bool, bool)) -> Check {
    let deny = || {
        let denied = action.to_owned();
        account.wire.begin(move |call| match call.name == denied {
            true => Verdict::Refuse(403, "AccessDenied", "User is not authorized to perform this"),
            false => Verdict::Pass,
        });
    };
    let named = |what: &str, output: &Output| {
        ensure!(
            output.code == Some(4) && output.stderr.contains(action),
            "{what}: exit code {:?}\n{}{}",
            output.code,
            output.stdout,
            output.stderr
        );
        Ok(()) as Check
    };
    if makes {
        deny();
        let outcome = up(account, name, &[]).await;
        account.wire.clear();
        named("kup up", &outcome.map_err(|e| format!("up: {e}"))?)?;
    }
    // moto removes a network that an endpoint stands in, and then has no way to remove the endpoint.
    if removes && action != "ec2:DeleteVpcEndpoints" {
        up(account, name, &[]).await?.ok("kup up with all rights")?;
        deny();
        let outcome = down(account, name).await;
        account.wire.clear();
        named("kup down", &outcome.map_err(|e| format!("down: {e}"))?)?;
    }
    down(account, name).await?.ok("kup down with all rights")?;
    Ok(())
}
