//! `kup iam`: what AWS has to allow.

use clap::{Args as ClapArgs, Subcommand};
use comfy_table::{Table, presets};

use super::Ui;
use super::config_args::ConfigArgs;
use crate::aws::permissions::{self, Requirement, Scope, Whose};
use crate::cluster::Cluster;
use crate::cluster::spec::ProviderKind;
use crate::error::{Context as _, Error, Result};

/// Say what AWS's IAM has to allow
#[derive(Debug, Clone, ClapArgs)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// Print the least policy that builds, runs and removes the cluster of this config
    ///
    /// What is printed is a policy for IAM and nothing else: kup iam policy | aws iam create-policy --policy-name kup --policy-document
    /// file:///dev/stdin. AWS is not asked, and no credentials are needed.
    Policy(PolicyArgs),
}

#[derive(Debug, Clone, ClapArgs)]
struct PolicyArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The account that the policy is for; without it any, by the cluster's name alone
    #[arg(long, value_name = "ACCOUNT", value_parser = account)]
    account: Option<String>,
    /// Print a table instead: each action, what it is allowed on, and which kinds of things need it
    #[arg(long)]
    explain: bool,
}

/// An account's number.
fn account(text: &str) -> std::result::Result<String, String> {
    if text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    Err("an account has twelve digits, as `aws sts get-caller-identity` tells them".to_owned())
}

/// Runs one of them.
pub async fn run(args: Args, ui: &Ui) -> Result<()> {
    match args.command {
        Command::Policy(args) => policy(args, ui).await,
    }
}

async fn policy(args: PolicyArgs, ui: &Ui) -> Result<()> {
    let cluster = args.config.load(&ui.report)?.cluster;
    if cluster.provider != ProviderKind::Aws && args.config.provider.is_some() {
        return Err(Error::usage(format!("a cluster of the provider {} needs no IAM policy", cluster.provider.as_str())));
    }
    let kinds = permissions::kinds(&cluster);
    if args.explain {
        let all = permissions::requirements(&kinds);
        if ui.json {
            return ui.result(&all);
        }
        explain(&all, ui);
        return Ok(());
    }
    let region = region(&cluster).await?;
    let whose = Whose {
        partition: partition(&region).to_owned(),
        account: args.account.unwrap_or_else(|| "*".to_owned()),
        cluster: cluster.name,
        region,
    };
    let policy = permissions::policy(&whose, &kinds);
    let text = serde_json::to_string_pretty(&policy).context("the policy can't be written")?;
    let size = text.chars().filter(|c| !c.is_whitespace()).count();
    if size > permissions::LARGEST {
        let largest = permissions::LARGEST;
        ui.report.warn(format!(
            "this policy has {size} characters, and IAM takes {largest} in a managed one: shorten the cluster's name"
        ));
    }
    ui.print(text);
    Ok(())
}

/// The region of the config, or else the one that AWS's own variables and profile name.
async fn region(cluster: &Cluster) -> Result<String> {
    use aws_config::meta::region::RegionProviderChain;
    if let Some(region) = &cluster.aws.region {
        return Ok(region.clone());
    }
    if let Some(region) = cluster.aws.zones.first().and_then(|zone| crate::cluster::aws::region_of(zone)) {
        return Ok(region.to_owned());
    }
    let mut profile = aws_config::profile::ProfileFileRegionProvider::builder();
    if let Some(name) = &cluster.aws.profile {
        profile = profile.profile_name(name);
    }
    let variables = aws_config::environment::EnvironmentVariableRegionProvider::new();
    match RegionProviderChain::first_try(variables).or_else(profile.build()).region().await {
        Some(region) => Ok(region.to_string()),
        None => Err(Error::usage("no AWS region is set")
            .why("neither the config, nor the environment, nor the profile names one")
            .hint("add --region us-west-2, or write aws.region into the config")
            .hint("or `export AWS_REGION=us-west-2`, or `aws configure set region us-west-2`")),
    }
}

fn partition(region: &str) -> &'static str {
    match region {
        region if region.starts_with("cn-") => "aws-cn",
        region if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

fn explain(all: &[Requirement], ui: &Ui) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["ACTION", "ON", "NEEDED BY"]);
    for one in all {
        let kinds: Vec<&str> = one.kinds.iter().copied().collect();
        let optional = if one.optional { " (optional)" } else { "" };
        table.add_row([one.action.to_owned(), on(one).to_owned(), format!("{}{optional}", kinds.join(", "))]);
    }
    ui.print(table.trim_fmt());
}

/// What an action is allowed on, as people read it.
fn on(one: &Requirement) -> &'static str {
    match one.scope {
        _ if permissions::creates(one.action, one.scope) => "what it makes with the cluster's tag",
        Scope::Any => "anything",
        Scope::Creates | Scope::Tagged | Scope::Named => "what has the cluster's tag",
        Scope::Kubernetes => "what Kubernetes made and tagged as the cluster's",
        Scope::IamPath => "the cluster's path in IAM",
        Scope::Bucket => "the cluster's bucket",
    }
}
