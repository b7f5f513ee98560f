//! Which image machines boot from: the newest of a distribution, by its publisher's own public parameter, or one by its id.

use super::Aws;
use super::fault::{Explain as _, Fault};
use super::layout::Image;
use super::permissions::{Need, Scope, need};
use crate::cluster::aws::Image as Choice;
use crate::error::{Error, Result};

/// What finding an image calls.
pub const NEEDS: &[Need] = &[need("ssm:GetParameter", Scope::Any), need("ec2:DescribeImages", Scope::Any)];

/// The public parameter with the newest image's id. `architecture` is EC2's word for it.
fn parameter(choice: &Choice, architecture: &str) -> Option<String> {
    let short = if architecture == "arm64" { "arm64" } else { "amd64" };
    Some(match choice {
        Choice::Debian13 => format!("/aws/service/debian/release/13/latest/{short}"),
        Choice::Debian12 => format!("/aws/service/debian/release/12/latest/{short}"),
        Choice::Ubuntu2404 => format!("/aws/service/canonical/ubuntu/server/24.04/stable/current/{short}/hvm/ebs-gp3/ami-id"),
        Choice::AmazonLinux2023 => format!("/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-{architecture}"),
        Choice::Id(_) => return None,
    })
}

/// The user with sudo, as each distribution's images have it; of an image that only has an id, by what its name says.
fn user(choice: &Choice, name: &str) -> &'static str {
    let name = name.to_lowercase();
    match choice {
        Choice::Debian13 | Choice::Debian12 => "admin",
        Choice::Ubuntu2404 => "ubuntu",
        Choice::AmazonLinux2023 => "ec2-user",
        Choice::Id(_) if name.contains("debian") => "admin",
        Choice::Id(_) if name.contains("ubuntu") => "ubuntu",
        Choice::Id(_) => "ec2-user",
    }
}

/// Finds the image for machines of this architecture, and checks that they can boot from it.
///
/// # Errors
/// No such parameter or image in this region, or one that is not ready, of another architecture or without a disk on EBS; all of kind usage.
pub async fn find(aws: &Aws, choice: &Choice, architecture: &str) -> Result<Image> {
    let word = String::from(choice.clone());
    let id = match (choice, parameter(choice, architecture)) {
        (Choice::Id(id), _) => id.clone(),
        (_, name) => newest(aws, &word, name.unwrap_or_default().as_str()).await?,
    };
    let answer = aws.ec2.describe_images().image_ids(&id).send().await.failure();
    let found = match answer {
        Ok(answer) => answer.images.unwrap_or_default().into_iter().next(),
        Err(failure) if matches!(failure.fault, Fault::Gone | Fault::Invalid) => None,
        Err(failure) => return Err(failure.error(format!("the image {id} could not be looked at"))),
    };
    let Some(found) = found else {
        return Err(Error::usage(format!("aws.image: there is no image {id} in {}", aws.region))
            .why("it is of another region, private, or no longer offered")
            .hint("write debian-13, ubuntu-24.04 or al2023 for the newest of each")
            .hint(format!("`aws ec2 describe-images --region {} --image-ids {id}` shows what AWS says of it", aws.region)));
    };
    let of = found.architecture.as_ref().map_or("", |a| a.as_str()).to_owned();
    let state = found.state.as_ref().map_or("", |s| s.as_str());
    let wrong = |why: String| Err(Error::usage(format!("aws.image: machines can't boot from {id} ({word})")).why(why));
    if state != "available" {
        return wrong(format!("its state is {state}"));
    }
    if of != architecture {
        return wrong(format!("it is for {of}, and the machines' types are {architecture}"))
            .map_err(|e: Error| e.hint("give types and an image of one architecture: t3 and m5 are x86_64, t4g and m7g arm64"));
    }
    if found.root_device_type.as_ref().is_some_and(|t| t.as_str() != "ebs") {
        return wrong("its root device is not on EBS".to_owned());
    }
    let name = found.name.unwrap_or_default();
    let root_device = found.root_device_name.filter(|device| !device.is_empty()).unwrap_or_else(|| "/dev/xvda".to_owned());
    Ok(Image { user: user(choice, &name).to_owned(), id, architecture: of, root_device })
}

async fn newest(aws: &Aws, word: &str, name: &str) -> Result<String> {
    let answer = aws.ssm.get_parameter().name(name).send().await.failure();
    match answer {
        Ok(answer) => match answer.parameter.and_then(|p| p.value).filter(|id| id.starts_with("ami-")) {
            Some(id) => Ok(id),
            None => Err(Error::new(format!("the newest image of {word} is not known"))
                .why(format!("the parameter {name} holds no image's id"))),
        },
        Err(failure) if failure.fault == Fault::Gone => {
            Err(Error::usage(format!("aws.image: {word} is not published in {}", aws.region))
                .why(format!("there is no parameter {name}"))
                .hint("choose another of debian-13, ubuntu-24.04 and al2023, or give an image's id, like ami-0123456789abcdef0"))
        }
        Err(failure) => Err(failure.error(format!("the newest image of {word} could not be asked for"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_publisher_has_its_own_words_for_an_architecture() {
        let of = |choice: &Choice, arch| parameter(choice, arch).unwrap_or_default();
        assert_eq!(of(&Choice::Debian13, "x86_64"), "/aws/service/debian/release/13/latest/amd64");
        assert_eq!(of(&Choice::Debian12, "arm64"), "/aws/service/debian/release/12/latest/arm64");
        assert!(of(&Choice::Ubuntu2404, "x86_64").contains("/amd64/hvm/"));
        assert_eq!(
            of(&Choice::AmazonLinux2023, "x86_64"),
            "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64"
        );
        assert_eq!(parameter(&Choice::Id("ami-1".into()), "x86_64"), None);
    }

    #[test]
    fn an_image_by_its_id_has_the_user_of_its_distribution() {
        let id = Choice::Id("ami-1".into());
        assert_eq!(user(&id, "debian-13-amd64-20260101"), "admin");
        assert_eq!(user(&id, "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04"), "ubuntu");
        assert_eq!(user(&id, "al2023-ami-2023"), "ec2-user");
    }
}
