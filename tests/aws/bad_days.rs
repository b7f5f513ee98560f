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

    // Credentials that expire in the middle: up goes on with new ones.
    refuse(&account, "ec2:RunInstances", 400, "RequestExpired", "Request has expired.");
    told(&up(&account, name, &[]).await?, 4, &["RequestExpired", "left:"])?;
    // Answers that were lost after the call took effect.
    let mut lost = false;
    account.wire.begin(move |call| {
        if call.name == "ec2:RunInstances" && !lost {
            lost = true;
            return Verdict::LoseReply;
        }
        Verdict::Pass
    });
    up(&account, name, &[]).await?.ok("kup up although an answer was lost")?;
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
