//! Images that users load onto all nodes of a cluster on AWS: each archive once in the bucket, whence nodes get it, and a list of them that
//! the manifest of what minions start from names, so that minions that come later get them too.

use std::collections::BTreeSet;

use crate::bundle::pack;
use crate::error::{Error, Result};

/// Where the list is.
pub const IMAGES: &str = "node/images";

/// An archive of images: what `podman save`, `docker save` or an OCI layout gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The archive's SHA-256, hexadecimal.
    pub sha256: String,
    /// The names under which nodes know its images.
    pub names: BTreeSet<String>,
}

impl Loaded {
    /// The object that the archive is in, compressed.
    pub fn object(&self) -> String {
        object(&self.sha256)
    }
}

/// The object that an archive is in, compressed.
pub fn object(sha256: &str) -> String {
    pack::key(sha256)
}

/// The list of a text: the archive's sum, its object, and the images' names, for each archive a line.
///
/// # Errors
/// It is no such text.
pub fn parse(text: &str) -> Result<Vec<Loaded>> {
    let line = |line: &str| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (sha256, at) = (words.next()?, words.next()?);
        let sum = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
        (sum && at == object(&sha256)).then(|| Loaded { sha256, names: words.collect() })
    };
    let lines =
        text.lines().map(|text| line(text).ok_or_else(|| Error::new(format!("{IMAGES} in the bucket is damaged")).why(text)));
    lines.collect()
}

/// The text of a list.
pub fn text(list: &[Loaded]) -> String {
    let names = |one: &Loaded| one.names.iter().map(|name| format!(" {name}")).collect::<String>();
    list.iter().map(|one| format!("{}  {} {}\n", one.sha256, one.object(), names(one))).collect()
}

/// The list with one archive more, and the archives of which nobody needs anything any more: all of their images are in the new one.
pub fn with(list: Vec<Loaded>, new: Loaded) -> (Vec<Loaded>, Vec<Loaded>) {
    let (mut stays, goes): (Vec<_>, Vec<_>) = list.into_iter().partition(|old| !old.names.is_subset(&new.names));
    let goes = goes.into_iter().filter(|old| old.sha256 != new.sha256).collect();
    stays.retain(|old| old.sha256 != new.sha256);
    stays.push(new);
    (stays, goes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn loaded(digit: char, names: &[&str]) -> Loaded {
        Loaded { sha256: digit.to_string().repeat(64), names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn a_list_is_read_as_it_was_written_and_nothing_else_is_one() {
        let list = [loaded('a', &["docker.io/library/one:1", "two:2"]), loaded('b', &[])];
        assert_eq!(parse(&text(&list)).unwrap(), list);
        assert_eq!(parse("").unwrap(), []);
        for wrong in ["x", "a b", &text(&list).replace("bundle/a", "bundle/c"), &text(&list).replace("aaaa", "")] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_a_newer_archive_has_too_goes() {
        let list = vec![loaded('a', &["one", "two"]), loaded('b', &["three"])];
        let (stays, goes) = with(list.clone(), loaded('c', &["one"]));
        assert_eq!((stays.len(), goes.len()), (3, 0), "only one of the two is in the new one");
        let (stays, goes) = with(list.clone(), loaded('c', &["one", "two", "four"]));
        assert_eq!(
            (stays, goes),
            (vec![loaded('b', &["three"]), loaded('c', &["one", "two", "four"])], vec![loaded('a', &["one", "two"])])
        );
        let (stays, goes) = with(list, loaded('b', &["three"]));
        assert_eq!((stays.len(), goes.len()), (2, 0), "the same again stays one");
    }
}
