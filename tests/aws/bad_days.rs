//! What goes wrong in an account, each with its cause, what is left, and what to type.

use super::story::{difference, down, up};
use super::user::{Account, Backend};
use super::wire::Verdict;
use crate::ensure;
use crate::support::Check;
use crate::support::cluster::Output;

/// Checks an error's exit code and words.
fn told(output: &Output, code: i32, words: &[&str]) -> Check {
    let missing: Vec<&&str> = words.iter().filter(|word| !output.stderr.contains(**word)).collect();
    ensure!(
        output.code == Some(code) && missing.is_empty(),
        "expected exit code {code} and {missing:?}; exit code {:?}, said:\n{}{}",
        output.code,
        output.stdout,
        output.stderr
    );
    Ok(())
}

/// Refuses every call of this name.
fn refuse(account: &Account, name: &'static str, status: u16, code: &'static str, message: &'static str) {
    account.wire.begin(move |call| if call.name == name { Verdict::Refuse(status, code, message) } else { Verdict::Pass });
}

/// How often a master was asked for since the line was set.
fn calls(account: &Account) -> usize {
    account.wire.counts().get("ec2:RunInstances").copied().unwrap_or_default()
}

/// Where AWS has no machine of the first type, one of the next is taken, told of, and kept.
async fn another_type_is_taken(account: &Account, name: &str) -> Check {
    let others = ["--set", "aws.masters.otherTypes=[t3a.medium, t2.medium]"];
    let planned = account.kup(&[&["plan", "--provider", "aws", "--name", name], &others[..]].concat()).await?.ok("kup plan")?;
    ensure!(planned.contains("t3.medium or t3a.medium or t2.medium in"), "the plan does not show the types:\n{planned}");
    let lacking = "We currently do not have sufficient capacity of this type.";
    refuse(account, "ec2:RunInstances", 500, "InsufficientInstanceCapacity", lacking);
    let none = up(account, name, &others).await?;
    told(&none, 1, &["t3.medium or t3a.medium or t2.medium", "InsufficientInstanceCapacity", "left:", "kup up"])?;
    ensure!(calls(account) == 3, "three types were asked for {} times", calls(account));

    let mut first = true;
    account.wire.begin(move |call| match call.name == "ec2:RunInstances" && std::mem::take(&mut first) {
        true => Verdict::Refuse(500, "InsufficientInstanceCapacity", lacking),
        false => Verdict::Pass,
    });
    let made = up(account, name, &others).await?;
    told(&made, 0, &["AWS had no t3.medium in", "master-1 is a t3a.medium", "--replace master-1"])?;
    let role = aws_sdk_ec2::types::Filter::builder().name("tag:kup.dev/role").values("master").build();
    let masters = account.ec2().await.describe_instances().filters(role).send().await?;
    let kinds: Vec<&str> =
        masters.reservations().iter().flat_map(|r| r.instances()).filter_map(|i| i.instance_type()).map(|t| t.as_str()).collect();
    ensure!(kinds == ["t3a.medium"], "the master is a {kinds:?}");
    account.wire.clear();
    up(account, name, &others).await?.ok("kup up again")?;
    ensure!(account.wire.sums().1 == 0, "a second up made calls: {:#?}", account.wire.counts());
    // It is paid for as what it is, of which the table of prices does not know here.
    let planned = [&["plan", "--provider", "aws", "--name", name, "-o", "json"], &others[..]].concat();
    let planned: serde_json::Value = serde_json::from_str(&account.kup(&planned).await?.ok("kup plan")?)?;
    ensure!(planned["cost"]["unknown"].to_string().contains("t3a.medium"), "{:#}", planned["cost"]);
    // A type of another architecture is no way out, and one that it may no longer be needs a yes.
    told(&up(account, name, &["--set", "aws.masters.otherTypes=[t4g.medium]"]).await?, 2, &["t4g.medium is arm64"])?;
    told(&up(account, name, &["--set", "aws.masters.otherTypes=[]"]).await?, 2, &["t3a.medium", "--replace instance/master-1"])?;
    up(account, name, &["--set", "aws.masters.otherTypes=[]", "--replace", "master-1"]).await?.ok("kup up --replace")?;
    Ok(())
}

pub async fn each_is_told_with_cause_and_next_command(account: Account) -> Check {
    let name = "unlucky";
    let before = account.dump().await?;
    let arguments = [&super::story::UP[..], &[name]].concat();

    // Logins.
    let none = account.kup_with(&[("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", "")], &arguments).await?;
    told(&none, 4, &["aws configure"])?;
    refuse(&account, "sts:GetCallerIdentity", 403, "ExpiredToken", "The security token included in the request is expired");
    told(&up(&account, name, &[]).await?, 4, &["ExpiredToken", "aws sso login"])?;
    refuse(
        &account,
        "sts:GetCallerIdentity",
        403,
        "SignatureDoesNotMatch",
        "Signature expired: 20261125T010000Z is now earlier than 20261125T020000Z",
    );
    told(&up(&account, name, &[]).await?, 4, &["clock"])?;
    // Others' calls are no reason to doubt one's login.
    refuse(&account, "sts:GetCallerIdentity", 400, "Throttling", "Rate exceeded");
    let throttled = up(&account, name, &[]).await?;
    told(&throttled, 1, &["Throttling", "try again in a minute"])?;
    ensure!(!throttled.stderr.contains("sso"), "throttling is called a wrong login:\n{}", throttled.stderr);
    account.wire.clear();
    let region = account.kup_with(&[("AWS_REGION", "")], &arguments).await?;
    told(&region, 2, &["AWS_REGION", "aws.region"])?;
    let nowhere = account.kup_with(&[("AWS_ENDPOINT_URL", "http://127.0.0.1:9")], &arguments).await?;
    told(&nowhere, 1, &["AWS_ENDPOINT_URL"])?;

    // A login that has to be renewed by a person, and a profile that is not there, whatever keys the environment has.
    let sso = "[profile sso]\nsso_session = us\nsso_account_id = 123456789012\nsso_role_name = me\nregion = us-west-2\n\
               [sso-session us]\nsso_region = us-west-2\nsso_start_url = https://example.awsapps.com/start\n";
    account.write(".aws/config", sso)?;
    told(&account.kup(&[&arguments[..], &["--profile", "sso"]].concat()).await?, 4, &["aws sso login --profile sso"])?;
    told(&account.kup(&[&arguments[..], &["--profile", "nope"]].concat()).await?, 4, &["nope"])?;

    // What the account may not have so much of: found before anything is made. (moto knows no quotas.)
    if account.backend == Backend::LocalStack {
        told(&up(&account, name, &["--minions", "100"]).await?, 1, &["quota", "virtual CPUs", "64 allowed"])?;
    }

    // What does not exist.
    told(&up(&account, name, &["--set", "aws.minions.type=x9.huge"]).await?, 2, &["x9.huge"])?;
    told(&up(&account, name, &["--set", "aws.zones=[us-west-2x]"]).await?, 2, &["us-west-2x"])?;
    told(&up(&account, name, &["--set", "aws.image=ami-0123456789abcdef0"]).await?, 2, &["ami-0123456789abcdef0"])?;
    let given = ["--set", "aws.vpc.id=vpc-0123456789abcdef0", "--set", "aws.vpc.subnets=[subnet-0123456789abcdef0]"];
    told(&up(&account, name, &given).await?, 2, &["vpc-0123456789abcdef0"])?;
    let after = account.dump().await?;
    ensure!(after == before, "what was refused made something:\n{}", difference(&before, &after));

    // A denied action: which, on what, and what to add; what was made stands, and down removes it.
    refuse(&account, "ec2:CreateVpc", 403, "UnauthorizedOperation", "You are not authorized to perform this operation.");
    told(&up(&account, name, &[]).await?, 4, &["ec2:CreateVpc", "kup iam policy", "left:", "kup down"])?;
    account.wire.clear();
    down(&account, name).await?.ok("kup down after a denied call")?;
    let after = account.dump().await?;
    ensure!(after == before, "a denied call left something that down does not find:\n{}", difference(&before, &after));

    refuse(&account, "ec2:CreateVpc", 400, "VpcLimitExceeded", "The maximum number of VPCs has been reached.");
    told(&up(&account, name, &[]).await?, 1, &["VpcLimitExceeded", "Service Quotas", "kup up"])?;
    refuse(
        &account,
        "ec2:RunInstances",
        500,
        "InsufficientInstanceCapacity",
        "We currently do not have sufficient t3.medium capacity in the Availability Zone you requested (us-west-2a).",
    );
    let capacity = up(&account, name, &[]).await?;
    told(&capacity, 1, &["InsufficientInstanceCapacity", "us-west-2a", "kup up", "kup down"])?;
    ensure!(!capacity.stderr.contains("throttl"), "lack of capacity is called throttling:\n{}", capacity.stderr);

    ensure!(calls(&account) == 1, "the same machine was asked for {} times", calls(&account));
    another_type_is_taken(&account, name).await?;

    // Credentials that expire in the middle: up goes on with new ones.
    refuse(&account, "ec2:RunInstances", 400, "RequestExpired", "Request has expired.");
    told(&up(&account, name, &["--replace", "master-1"]).await?, 4, &["RequestExpired", "left:"])?;
    // Answers that were lost after the call took effect.
    let mut lost = false;
    account.wire.begin(move |call| {
        if call.name == "ec2:RunInstances" && !lost {
            lost = true;
            return Verdict::LoseReply;
        }
        Verdict::Pass
    });
    up(&account, name, &["--replace", "master-1"]).await?.ok("kup up although an answer was lost")?;
    let running = aws_sdk_ec2::types::Filter::builder().name("tag:kup.dev/role").values("master").build();
    let masters = account.ec2().await.describe_instances().filters(running).send().await?;
    let alive = masters
        .reservations()
        .iter()
        .flat_map(|r| r.instances())
        .filter(|i| i.state().and_then(|s| s.name()).is_some_and(|s| matches!(s.as_str(), "pending" | "running")));
    ensure!(alive.count() == 1, "a lost answer made two masters: {masters:?}");
    account.wire.clear();

    // A key that is not the one that the machines know, and one that is not here any more.
    let made = std::process::Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(account.path("another"))
        .status()?;
    ensure!(made.success(), "ssh-keygen: {made}");
    let key = format!("aws.sshKey={}", account.path("another").display());
    told(&up(&account, name, &["--set", &key]).await?, 2, &["aws.sshKey", "SHA256:"])?;
    let (here, away) = (account.path(".ssh/kube_aws_rsa"), account.path("away"));
    std::fs::rename(&here, &away)?;
    told(&up(&account, name, &[]).await?, 2, &["kube_aws_rsa is not on this machine", "aws.sshKey"])?;
    std::fs::rename(&away, &here)?;

    down(&account, name).await?.ok("kup down")?;
    ensure!(!here.exists(), "the private key that kup made stayed");
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}
