//! What somebody else does between a plan that was shown and confirmed, and the lock under which it is carried out.

use std::pin::Pin;

use aws_config::SdkConfig;
use aws_sdk_ec2::types::{Filter, ResourceType, Tag, TagSpecification};

use super::story::{UP, census, difference, down, up};
use super::user::{Account, REGION};
use super::wire::Verdict;
use crate::ensure;
use crate::support::Check;

/// Has this done past the line once, when kup is about to take its lock: whatever it planned, it planned before.
fn meanwhile<W>(account: &Account, config: SdkConfig, work: W)
where
    W: FnOnce(SdkConfig) -> Pin<Box<dyn Future<Output = Check>>> + Send + 'static,
{
    let mut work = Some((config, work));
    account.wire.begin(move |call| {
        if call.name == "s3:PutObject"
            && let Some((config, work)) = work.take()
        {
            // kup is held up by the answer that it waits for.
            let other = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(work(config))
            });
            other.join().unwrap().unwrap();
        }
        Verdict::Pass
    });
}

/// A volume for etcd that carries the cluster's tags, and which no config wants.
async fn surplus(config: SdkConfig, name: &'static str) -> Check {
    let tags = [("kup.dev/cluster", name), ("kup.dev/name", "etcd-9"), ("kup.dev/role", "etcd")];
    let tags = tags.iter().map(|(key, value)| Tag::builder().key(*key).value(*value).build()).collect();
    aws_sdk_ec2::Client::new(&config)
        .create_volume()
        .availability_zone(format!("{REGION}a"))
        .size(1)
        .tag_specifications(TagSpecification::builder().resource_type(ResourceType::Volume).set_tags(Some(tags)).build())
        .send()
        .await?;
    Ok(())
}

/// Its id, while it is there.
async fn surplus_id(account: &Account) -> Check<Option<String>> {
    let named = Filter::builder().name("tag:kup.dev/name").values("etcd-9").build();
    let found = account.ec2().await.describe_volumes().filters(named).send().await?;
    Ok(found.volumes().first().and_then(|volume| volume.volume_id()).map(str::to_owned))
}

/// How many minions the cluster's group wants.
async fn wanted(account: &Account) -> Check<i32> {
    let groups = aws_sdk_autoscaling::Client::new(&account.sdk().await).describe_auto_scaling_groups().send().await?;
    groups.auto_scaling_groups().first().and_then(|group| group.desired_capacity()).ok_or_else(|| "no group".into())
}

async fn key_pairs(account: &Account) -> Check<Vec<String>> {
    let pairs = account.ec2().await.describe_key_pairs().send().await?;
    Ok(pairs.key_pairs().iter().filter_map(|pair| pair.key_name().map(str::to_owned)).collect())
}

pub async fn who_answers_late_finds_it_made(account: Account) -> Check {
    let name = "awaited";
    let before = account.dump().await?;
    let other = async { up(&account, name, &["--minions", "1"]).await?.ok("kup up by somebody else") };
    let arguments: Vec<&str> = UP.iter().copied().filter(|word| *word != "-y").chain([name, "--minions", "1"]).collect();
    let late = account.on_terminal_after(&arguments, async { other.await.map(drop) }, "y\n").await?;
    ensure!(
        late.code == Some(0) && late.stdout.contains("23 to create") && late.stdout.contains("As before, everything that"),
        "{:?}\n{}",
        late.code,
        late.stdout
    );
    down(&account, name).await?.ok("kup down")?;

    // What he said yes to ends none of the machines that somebody else has made more.
    let other = async { up(&account, name, &["--minions", "3"]).await?.ok("kup up of more by somebody else") };
    let late = account.on_terminal_after(&arguments, async { other.await.map(drop) }, "y\nn\n").await?;
    ensure!(
        late.code == Some(130) && late.stdout.contains("count: 3 → 1") && late.stdout.contains("Do this too? [y/N]"),
        "{:?}\n{}",
        late.code,
        late.stdout
    );
    ensure!(wanted(&account).await? == 3, "minions were ended without a word:\n{}", late.stdout);

    // And the end of one cluster is not that of the next of its name.
    let other = async {
        down(&account, name).await?.ok("kup down by somebody else")?;
        up(&account, name, &["--minions", "1"]).await?.ok("kup up again by somebody else")
    };
    let removal = ["down", "--provider", "aws", "--name", name];
    let late = account.on_terminal_after(&removal, async { other.await.map(drop) }, "y\nn\n").await?;
    ensure!(
        late.code == Some(130) && late.stdout.contains("Remove this too? [y/N]") && late.stdout.contains("nothing was removed"),
        "{:?}\n{}",
        late.code,
        late.stdout
    );
    let census = census(&account, name).await?;
    ensure!(census["vpcs"] == 1 && census["masters"] == 1, "{census:#}");
    let sure = account.on_terminal(&removal, "y\n").await?;
    ensure!(sure.code == Some(0) && !sure.stdout.contains("Remove this too?"), "{:?}\n{}", sure.code, sure.stdout);
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}

pub async fn what_was_not_confirmed_is_asked_for_again(account: Account) -> Check {
    let name = "changing";
    let before = account.dump().await?;
    up(&account, name, &["--minions", "1"]).await?.ok("kup up")?;

    // -y says nothing about the end of what was not there yet.
    meanwhile(&account, account.sdk().await, move |config| Box::pin(surplus(config, name)));
    let refused = up(&account, name, &["--minions", "2"]).await?;
    let volume = surplus_id(&account).await?.ok_or("the volume that nobody had confirmed the end of is gone")?;
    let gone = format!("delete volume etcd-9 ({volume})");
    ensure!(
        refused.code == Some(1) && refused.stderr.contains(&gone) && refused.stderr.contains("`kup plan "),
        "{:?}\n{}{}",
        refused.code,
        refused.stdout,
        refused.stderr
    );
    ensure!(wanted(&account).await? == 1, "what was refused was begun:\n{}", refused.stderr);
    // Shown in the plan it is confirmed like all else.
    account.wire.clear();
    up(&account, name, &["--minions", "2"]).await?.ok("kup up with all of it in its plan")?;
    ensure!(surplus_id(&account).await?.is_none() && wanted(&account).await? == 2, "it did not do what its plan said");

    // What is to be made again is: -y means that all is as wanted.
    let pairs = key_pairs(&account).await?;
    let key = pairs.first().cloned().ok_or("no key pair")?;
    let lost = key.clone();
    meanwhile(&account, account.sdk().await, move |config| {
        Box::pin(async move {
            aws_sdk_ec2::Client::new(&config).delete_key_pair().key_name(lost).send().await?;
            Ok(())
        })
    });
    let more = up(&account, name, &["--minions", "1"]).await?;
    ensure!(
        more.code == Some(0) && more.stderr.contains("has changed since") && more.stderr.contains("create key pair ssh"),
        "{:?}\n{}{}",
        more.code,
        more.stdout,
        more.stderr
    );
    ensure!(key_pairs(&account).await? == pairs, "the key pair was not made again");

    // On a terminal both are asked about, and a no to the second leaves all as it is.
    for (answers, code, minions) in [("y\nn\n", 130, 1), ("y\ny\n", 0, 3)] {
        let lost = key.clone();
        meanwhile(&account, account.sdk().await, move |config| {
            Box::pin(async move {
                aws_sdk_ec2::Client::new(&config).delete_key_pair().key_name(lost).send().await?;
                Ok(())
            })
        });
        let arguments: Vec<&str> = UP.iter().copied().filter(|word| *word != "-y").chain([name, "--minions", "3"]).collect();
        let asked = account.on_terminal(&arguments, answers).await?;
        account.wire.clear();
        ensure!(
            asked.code == Some(code) && asked.stdout.contains("Do this too? [y/N]"),
            "{answers:?}: {:?}\n{}",
            asked.code,
            asked.stdout
        );
        ensure!(wanted(&account).await? == minions, "{answers:?}: {}", asked.stdout);
        up(&account, name, &["--minions", &minions.to_string()]).await?.ok("kup up")?;
    }
    down(&account, name).await?.ok("kup down")?;
    let after = account.dump().await?;
    ensure!(after == before, "down left or took something:\n{}", difference(&before, &after));
    Ok(())
}
