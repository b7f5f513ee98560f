//! Scripts, units and lists as those read them whom they are for: a shell, systemd, containerd.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use kup::cluster::Cluster;
use regex::Regex;

use crate::engine::Outcome;
use crate::holds;
use crate::mutation::MARK;

thread_local! {
    /// Scripts that were looked at already: most have no word of the config in them.
    static KNOWN: RefCell<HashSet<Vec<u8>>> = RefCell::default();
}

/// The sections and directives of a unit, and the flags of its commands, in order. What systemd would put something else in place of is
/// refused: no unit of kup's has a `%`.
pub fn directives(text: &str) -> Result<Vec<String>, String> {
    holds!(!text.contains('%'), "it has a specifier");
    let joined = text.replace("\\\n", " ");
    let mut all = Vec::new();
    for line in joined.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with('[') {
            all.push(line.to_owned());
            continue;
        }
        let (key, value) = line.split_once('=').ok_or_else(|| format!("a line that is no directive: {line:?}"))?;
        all.push(key.to_owned());
        if key == "ExecStart" {
            let quoted = value.contains(['\'', '"', '\\', '$', ';', '`']);
            holds!(!quoted, "a command with quotes, variables or several commands: {value:?}");
            let flag = |word: &str| word.split_once('=').map_or(word.to_owned(), |(flag, _)| flag.to_owned());
            // The word behind a script's path is its argument.
            all.extend(value.split(' ').filter(|word| word.starts_with('-')).map(flag));
            all.push(format!("{} words", value.split_whitespace().count()));
        }
    }
    Ok(all)
}

/// Whether a script is one, and what heredocs it has are of its own lines alone.
pub fn script(dir: &Path, text: &str) -> Outcome {
    if !KNOWN.with_borrow_mut(|known| known.insert(text.as_bytes().to_vec())) {
        return Ok(());
    }
    let path = dir.join("script.sh");
    fs::write(&path, text).map_err(|e| e.to_string())?;
    let checked = Command::new("sh").arg("-n").arg(&path).output().map_err(|e| e.to_string())?;
    holds!(checked.status.success(), "sh does not read it: {}", String::from_utf8_lossy(&checked.stderr));
    // All that the images' script reads of its own text are names and references.
    if let Some((_, list)) = text.split_once("done << 'END'\n") {
        let (list, rest) = list.split_once("\nEND\n").ok_or("a list without its end")?;
        let line = Regex::new("^[A-Za-z0-9._-]+ [A-Za-z0-9./:@_-]+$").map_err(|e| e.to_string())?;
        holds!(list.lines().all(|words| line.is_match(words)), "a line that is no image: {list}");
        holds!(
            rest == "for job in $jobs; do wait \"$job\"; done\n\n" || rest.starts_with("for job in"),
            "more than the list: {rest}"
        );
    }
    // The block of the hosts file is addresses and names.
    if let Some((_, block)) = text.split_once("block='# kup: begin\n") {
        let (block, _) = block.split_once("\n# kup: end'").ok_or("a block without its end")?;
        let line = Regex::new(r"^[0-9.]+ [a-z.]+$").map_err(|e| e.to_string())?;
        holds!(block.lines().all(|words| line.is_match(words)), "a line that names no master: {block}");
    }
    // The assignments at its head, as a shell reads them: nothing runs in a place where nothing is.
    let head: String = text.lines().filter(|line| assigns(line)).map(|line| format!("{line}\n")).collect();
    ran(dir, &head, &[]).map(drop)
}

/// Whether a line gives a variable a word in single quotes.
fn assigns(line: &str) -> bool {
    let named = line.split_once("='").is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase()));
    // What goes on in the next line is looked at by itself.
    named && line.ends_with('\'')
}

/// What a shell prints that runs this in an empty directory, with `touch` as the only program. It must not have been run.
fn ran(dir: &Path, text: &str, arguments: &[&str]) -> Result<String, String> {
    let (place, bin) = (dir.join("place"), dir.join("bin"));
    if !bin.exists() {
        fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
        let touch = ["/usr/bin/touch", "/bin/touch"].into_iter().find(|path| Path::new(path).exists()).ok_or("no touch")?;
        std::os::unix::fs::symlink(touch, bin.join("touch")).map_err(|e| e.to_string())?;
        std::os::unix::fs::symlink("/bin/cat", bin.join("cat")).map_err(|e| e.to_string())?;
        std::os::unix::fs::symlink("/bin/mkdir", bin.join("mkdir")).map_err(|e| e.to_string())?;
    }
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).map_err(|e| e.to_string())?;
    let path = dir.join("run.sh");
    fs::write(&path, text).map_err(|e| e.to_string())?;
    let run = Command::new("/bin/sh").arg(&path).args(arguments).env_clear().env("PATH", &bin).current_dir(&place).output();
    let run = run.map_err(|e| e.to_string())?;
    holds!(!place.join(MARK).exists() && !Path::new("/KUPMARK").exists(), "a word of it was run");
    holds!(run.status.success(), "sh failed: {}", String::from_utf8_lossy(&run.stderr));
    Ok(String::from_utf8_lossy(&run.stdout).into_owned())
}

/// What the script of backups says of the cluster, as a shell reads it, is what the config says.
pub fn described(dir: &Path, cluster: &Cluster, text: &str) -> Outcome {
    let (_, rest) = text.split_once("\tprintf '{\"name\"").ok_or("the script of backups describes nothing")?;
    let (words, _) = rest.split_once(" \\\n\t\t> \"$name.json\"").ok_or("the description has no end")?;
    let text = format!("name=n revision=1 reason=hand size=1 sum=s\nprintf '{{\"name\"{words}\n");
    let mut seen = text.clone().into_bytes();
    seen.extend_from_slice(cluster.name.as_bytes());
    if !KNOWN.with_borrow_mut(|known| known.insert(seen)) {
        return Ok(());
    }
    let said: serde_json::Value = serde_json::from_str(&ran(dir, &text, &[])?).map_err(|e| format!("{e}: {text}"))?;
    let domain = &said["network"]["domain"];
    holds!(said["cluster"] == cluster.name && *domain == cluster.network.domain, "backups would say {said}");
    Ok(())
}

/// Whether a registry's file is of the lines that its template has, with words of JSON in them.
pub fn hosts(text: &str) -> Outcome {
    let word = r#""([^"\\\x00-\x1f]|\\["\\nrtbf/]|\\u[0-9a-f]{4})*""#;
    let line = format!(
        r#"^(#.*|server = {word}|ca = {word}|\[header\]|  Authorization = {word}|\[host\.{word}\]|  capabilities = \["pull", "resolve"\]|  override_path = true|  ca = {word}|  \[host\.{word}\.header\]|    Authorization = {word}|)$"#
    );
    let line = Regex::new(&line).map_err(|e| e.to_string())?;
    match text.lines().find(|text| !line.is_match(text)) {
        Some(odd) => Err(format!("a line that is none of its template's: {odd:?}")),
        None => Ok(()),
    }
}

/// What a minion's first boot writes down, as a shell runs it.
pub fn told(dir: &Path, text: &str, labels: &[String], taints: &[String]) -> Outcome {
    if !KNOWN.with_borrow_mut(|known| known.insert(text.as_bytes().to_vec())) {
        return Ok(());
    }
    let (head, _) = text.split_once("\nsay() {").ok_or("no head")?;
    let settings = dir.join("boot");
    let head = head.replace("/var/lib/kup/boot", &settings.display().to_string());
    let _ = fs::remove_dir_all(&settings);
    ran(dir, &head, &[])?;
    let said = fs::read_to_string(settings.join("settings")).map_err(|e| e.to_string())?;
    let of = |key: &str| said.lines().filter_map(|line| line.strip_prefix(key)).map(str::to_owned).collect::<Vec<_>>();
    holds!(of("label=") == labels && of("taint=") == taints, "other settings: {said}");
    holds!(said.lines().count() == 5 + labels.len() + taints.len(), "more settings: {said}");
    Ok(())
}
