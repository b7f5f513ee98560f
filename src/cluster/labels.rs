//! Labels and taints of nodes, by Kubernetes' own rules: what a kubelet would refuse at its start is refused in the config.

use std::fmt;

use super::problem::quoted;

/// The longest name and the longest value.
const LONGEST: usize = 63;
/// The longest prefix, a DNS name.
const LONGEST_PREFIX: usize = 253;

/// Prefixes of Kubernetes below which a kubelet may give its own node any label; it refuses to start with others.
const OWN: [&str; 2] = ["node.kubernetes.io", "kubelet.kubernetes.io"];

/// What the kubelet or the cloud's controller says of each node by itself.
const SET_ANYWAY: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

/// What a taint does to pods that don't tolerate it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// None is scheduled here.
    NoSchedule,
    /// Others are preferred.
    PreferNoSchedule,
    /// None stays here.
    NoExecute,
}

impl Effect {
    const ALL: [Effect; 3] = [Effect::NoSchedule, Effect::PreferNoSchedule, Effect::NoExecute];

    /// Kubernetes' word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A taint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taint<'a> {
    /// Its key.
    pub key: &'a str,
    /// Its value; may be empty.
    pub value: &'a str,
    /// What it does.
    pub effect: Effect,
}

/// A label's key and value from `key=value`.
///
/// # Errors
/// What is wrong, and the fix.
pub fn label(text: &str) -> Result<(&str, &str), (String, String)> {
    let wrong = |why: String| (format!("{} {why}", quoted(text)), "write it like tier=web".to_owned());
    let (key, value) = text.split_once('=').ok_or_else(|| wrong("is no label: it has no `=`".into()))?;
    if let Some(why) = key_fault(key).or_else(|| value_fault(value)) {
        return Err(wrong(format!("is no label: {why}")));
    }
    let Some((prefix, _)) = key.split_once('/') else { return Ok((key, value)) };
    if SET_ANYWAY.contains(&key) {
        return Err((format!("{} is set for each node by what it is", quoted(key)), "remove it".into()));
    }
    let below = |domain: &str| prefix.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    if (below("kubernetes.io") || below("k8s.io")) && !OWN.into_iter().any(below) {
        let what = format!("{} is not among what a node may say of itself: its kubelet would not start", quoted(key));
        let fix = "use a prefix of your own, like example.com/, or none; below kubernetes.io and k8s.io only node.kubernetes.io/… is free".into();
        return Err((what, fix));
    }
    Ok((key, value))
}

/// A taint from `key=value:effect` or `key:effect`.
///
/// # Errors
/// What is wrong, and the fix.
pub fn taint(text: &str) -> Result<Taint<'_>, (String, String)> {
    let wrong = |why: String| {
        (
            format!("{} is no taint: {why}", quoted(text)),
            "write it like \"batch=yes:NoSchedule\" or \"batch:NoExecute\"".to_owned(),
        )
    };
    let (rest, effect) = text.rsplit_once(':').ok_or_else(|| wrong("it has no `:` with an effect behind it".into()))?;
    let effect = Effect::ALL
        .into_iter()
        .find(|known| known.as_str() == effect)
        .ok_or_else(|| wrong(format!("its effect {} is neither NoSchedule, PreferNoSchedule nor NoExecute", quoted(effect))))?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    match key_fault(key).or_else(|| value_fault(value)) {
        Some(why) => Err(wrong(why)),
        None => Ok(Taint { key, value, effect }),
    }
}

/// Why a text is no key: a name, perhaps behind a DNS name and a slash.
fn key_fault(key: &str) -> Option<String> {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let good = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    if let Some(prefix) = prefix.filter(|prefix| prefix.len() > LONGEST_PREFIX || !prefix.split('.').all(good)) {
        return Some(format!("the prefix {} is no DNS name in lower case", quoted(prefix)));
    }
    if name.is_empty() { Some("its name is empty".into()) } else { word_fault("name", name) }
}

fn value_fault(value: &str) -> Option<String> {
    if value.is_empty() { None } else { word_fault("value", value) }
}

/// Letters, digits, hyphens, underscores and dots, with a letter or digit at both ends.
fn word_fault(kind: &str, word: &str) -> Option<String> {
    let ends = |c: char| c.is_ascii_alphanumeric();
    let inside = |c: char| ends(c) || matches!(c, '-' | '_' | '.');
    if let Some(c) = word.chars().find(|c| !inside(*c)) {
        return Some(format!("its {kind} has the character {}", quoted(&c.to_string())));
    }
    if !word.starts_with(ends) || !word.ends_with(ends) {
        return Some(format!("its {kind} does not begin and end with a letter or digit"));
    }
    (word.len() > LONGEST).then(|| format!("its {kind} is longer than {LONGEST} characters"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_those_that_a_kubelet_takes() {
        let long = "x".repeat(63);
        for good in ["a=b", "a=", "A.b_c-d=1.2", "example.com/a=b", "node.kubernetes.io/pool=x", "x.node.kubernetes.io/a=b"]
            .map(String::from)
            .into_iter()
            .chain([format!("{long}={long}"), "node.kubernetes.io/exclude-from-external-load-balancers=".into()])
            .chain(["notkubernetes.io/a=b".into(), "kubernetes.io.example.com/a=b".into()])
        {
            assert!(label(&good).is_ok(), "{good}: {:?}", label(&good));
        }
        for bad in [
            "",
            "a",
            "=b",
            "/a=b",
            "a/=b",
            "a/b/c=d",
            "-a=b",
            "a=b-",
            "a=b c",
            "a=b=c",
            "ä=b",
            "Example.com/a=b",
            "a..b/c=d",
            "kubernetes.io/role=x",
            "node-role.kubernetes.io/web=",
            "node-restriction.kubernetes.io/x=y",
            "k8s.io/x=y",
            "x.k8s.io/x=y",
            "xnode.kubernetes.io/a=b",
            "kubernetes.io/hostname=x",
            "node.kubernetes.io/instance-type=x",
        ] {
            assert!(label(bad).is_err(), "{bad}");
        }
        assert!(label(&format!("{long}x=y")).is_err() && label(&format!("y={long}x")).is_err());
    }

    #[test]
    fn taints_have_an_effect() {
        let full = Taint { key: "example.com/batch", value: "yes", effect: Effect::NoSchedule };
        assert_eq!(taint("example.com/batch=yes:NoSchedule"), Ok(full));
        assert_eq!(taint("a:NoExecute"), Ok(Taint { key: "a", value: "", effect: Effect::NoExecute }));
        assert_eq!(taint("a=:PreferNoSchedule").unwrap().effect.to_string(), "PreferNoSchedule");
        for bad in
            ["", ":", "a", "a=b", "a:noschedule", "a:", ":NoSchedule", "=b:NoSchedule", "a=b:c:NoSchedule", "a b:NoExecute"]
        {
            assert!(taint(bad).is_err(), "{bad}");
        }
    }
}
