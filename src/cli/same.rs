//! What to type next, completed so that it means the same cluster: whoever copies a command that kup names loses no flag on the way.
//!
//! Most advice is written where nobody knows what was typed. So a command says once which cluster it means ([`super::Ui::means`]), and what it
//! says at its end gets the flags that are missing. Which flags a command takes is read from the command line's own definition.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;

use super::Cli;
use crate::cluster::spec::ProviderKind;
use crate::error::Error;
use crate::known::Known;
use crate::machine::ssh::quoted;
use crate::provider::AwsProvider;

/// The flags by which another command means the same cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Same {
    flags: Vec<(&'static str, String)>,
    /// The config file that was named: what is made is made of it.
    file: Option<PathBuf>,
}

impl Same {
    /// A cluster on AWS, which no command finds without all of these.
    pub fn on_aws(provider: &AwsProvider) -> Same {
        let aws = &provider.aws;
        Same::default()
            .with("provider", Some(ProviderKind::Aws.as_str()))
            .with("profile", aws.profile.as_deref())
            .with("region", Some(&aws.region))
            .with("name", Some(&aws.cluster))
    }

    /// One that is known of here.
    pub fn known(known: &Known) -> Same {
        Same::default()
            .with("provider", Some(ProviderKind::Aws.as_str()))
            .with("profile", known.profile.as_deref())
            .with("region", known.region.as_deref())
            .with("name", Some(&known.name))
    }

    /// With one more flag, if it has a value.
    #[must_use]
    pub fn with(mut self, flag: &'static str, value: Option<&str>) -> Same {
        self.flags.extend(value.map(|value| (flag, value.to_owned())));
        self
    }

    /// Without a flag.
    #[must_use]
    pub fn without(mut self, flag: &str) -> Same {
        self.flags.retain(|(known, _)| *known != flag);
        self
    }

    /// With the config file that was named, for commands that make what it says. Standard input can't be read again.
    #[must_use]
    pub fn of_file(mut self, file: Option<&Path>) -> Same {
        self.file = file.filter(|file| *file != Path::new("-")).map(Path::to_owned);
        self
    }

    /// A text in which every command of kup's between backticks means this cluster.
    pub fn complete(&self, text: &str) -> String {
        let parts = text.split('`').enumerate().map(|(i, part)| {
            let command = if i % 2 == 1 { self.command(part) } else { None };
            command.unwrap_or_else(|| part.to_owned())
        });
        parts.collect::<Vec<_>>().join("`")
    }

    /// An error of which all that is to be typed means this cluster.
    #[must_use]
    pub fn complete_error(&self, error: Error) -> Error {
        let complete = |all: Vec<String>| all.iter().map(|text| self.complete(text)).collect();
        Error {
            what: self.complete(&error.what),
            why: complete(error.why),
            left: error.left.map(|left| self.complete(&left)),
            hints: complete(error.hints),
            ..error
        }
    }

    /// A line that begins with `kup`, with the flags that its command takes and it does not have. None if it is no command, or about another
    /// cluster.
    pub fn command(&self, line: &str) -> Option<String> {
        let words: Vec<&str> = line.strip_prefix("kup ")?.split(' ').collect();
        let (mut command, mut at) = (Cli::command(), 0);
        while let Some(next) = words.get(at).and_then(|word| command.find_subcommand(word)).cloned() {
            (command, at) = (next, at + 1);
        }
        if at == 0 {
            return None;
        }
        let (head, rest) = words.split_at(at);
        // What comes after two dashes is another program's.
        let ours = rest.split(|word| *word == "--").next().unwrap_or_default();
        let given = |flag: &str| {
            let flag = format!("--{flag}");
            let value = |(i, word): (usize, &&str)| match word.strip_prefix(flag.as_str())? {
                "" => Some(ours.get(i + 1).copied().unwrap_or_default().to_owned()),
                other => other.strip_prefix('=').map(str::to_owned),
            };
            ours.iter().enumerate().find_map(value)
        };
        let other = |(flag, value): &(&'static str, String)| {
            ["provider", "name"].contains(flag) && given(flag).is_some_and(|given| given != *value)
        };
        if self.flags.iter().any(other) {
            return None;
        }
        let takes = |flag: &str| command.get_arguments().any(|argument| argument.get_long() == Some(flag));
        let missing = self.flags.iter().filter(|(flag, _)| takes(flag) && given(flag).is_none());
        let mut flags: Vec<String> = missing.map(|(flag, value)| format!("--{flag} {}", word(value))).collect();
        // What is made of a config takes all of its flags.
        if let Some(file) = self.file.as_ref().filter(|_| takes("set") && given("file").is_none() && !ours.contains(&"-f")) {
            flags.push(format!("-f {}", word(&file.display().to_string())));
        }
        let all =
            ["kup"].into_iter().chain(head.iter().copied()).chain(flags.iter().map(String::as_str)).chain(rest.iter().copied());
        Some(all.collect::<Vec<_>>().join(" "))
    }
}

/// A word as a shell takes it for one.
fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:=@,+".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) { text.to_owned() } else { quoted(text) }
}

/// What was typed, as a shell takes it again.
pub(super) fn typed() -> String {
    let words = std::env::args().skip(1).map(|argument| word(&argument));
    std::iter::once("kup".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same() -> Same {
        Same::default().with("provider", Some("aws")).with("region", Some("us-west-2")).with("name", Some("c"))
    }

    #[test]
    fn commands_get_the_flags_that_they_take_and_lack() {
        let all = "--provider aws --region us-west-2 --name c";
        for (line, completed) in [
            ("`kup up` tries again", format!("`kup up {all}` tries again")),
            ("`kup up --replace master-1`", format!("`kup up {all} --replace master-1`")),
            ("`kup up --provider aws --name c` or so", "`kup up --region us-west-2 --provider aws --name c` or so".to_owned()),
            ("`kup up --name=c`", "`kup up --provider aws --region us-west-2 --name=c`".to_owned()),
            ("`kup ssh i-1 -- x --name y`", format!("`kup ssh {all} i-1 -- x --name y`")),
            ("`kup kubectl -- get nodes`", format!("`kup kubectl {all} -- get nodes`")),
            ("`kup etcd restore x`; `kup logs`", format!("`kup etcd restore {all} x`; `kup logs {all}`")),
            ("`kup get clusters`", "`kup get clusters --provider aws --region us-west-2`".to_owned()),
        ] {
            assert_eq!(same().complete(line), completed);
        }
    }

    #[test]
    fn what_is_of_no_cluster_or_of_another_one_stays() {
        for line in [
            "kup up",
            "`kup`",
            "`kup x`",
            "`kup bundle build --version 1`",
            "`kup up --name d`",
            "`kup down --provider local`",
            "`ls`",
            "`",
        ] {
            assert_eq!(same().complete(line), line);
        }
        assert_eq!(Same::default().complete("`kup up` goes on"), "`kup up` goes on");
    }

    #[test]
    fn what_is_made_of_a_file_is_made_of_it_again() {
        let same = Same::default().with("name", Some("c")).of_file(Some(Path::new("my file.yaml")));
        assert_eq!(same.complete("`kup up`, `kup status`"), "`kup up --name c -f 'my file.yaml'`, `kup status --name c`");
        assert_eq!(same.complete("`kup up -f x.yaml`"), "`kup up --name c -f x.yaml`");
        assert_eq!(Same::default().of_file(Some(Path::new("-"))), Same::default());
    }

    #[test]
    fn all_of_an_error_is_completed() {
        let error = Error::new("interrupted; `kup up` resumes").why("`kup down`").left("`kup gc`").hint("`kup logs`");
        let text = same().complete_error(error).to_string();
        assert_eq!(text.matches("--provider aws").count(), 4, "{text}");
        assert_eq!(text.matches("--name c").count(), 3, "what is of all clusters takes no name: {text}");
    }

    #[test]
    fn completed_commands_can_be_parsed() {
        use clap::Parser as _;
        for line in ["kup up", "kup status", "kup etcd list", "kup gc", "kup get nodes", "kup addons list", "kup down -y"] {
            let completed = same().command(line).unwrap_or_default();
            assert!(Cli::try_parse_from(completed.split(' ')).is_ok(), "{completed}");
        }
    }
}
