//! The config from outside: defaults, layers, origins, files that are none, and garbage of every kind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod config_aws;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use kup::cluster::spec::{BundleRoute, Cluster, EngineChoice, ProviderKind, Subnet};
use kup::cluster::{Loaded, Origin, Overrides, Source, defaults, load, schema, validate, versions};
use kup::error::Kind;
use proptest::prelude::*;
use serde_yaml::Value;

fn source(text: &str) -> (tempfile::TempDir, Source) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kup.yaml");
    fs::write(&file, text).unwrap();
    (dir, Source { file: Some(file), ..Source::default() })
}

fn load_text(text: &str) -> kup::error::Result<Loaded> {
    let (_dir, source) = source(text);
    load(source)
}

fn variables(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<OsString, OsString> {
    pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))).collect()
}

#[test]
fn the_default_cluster_is_kube_ups() {
    let cluster = load(Source::default()).unwrap().cluster;
    assert_eq!(cluster.name, "kubernetes");
    assert_eq!(cluster.provider, ProviderKind::Local);
    assert_eq!(cluster.kubernetes.version, versions::Releases::compiled_in().unwrap().default);
    assert_eq!((cluster.masters.count, cluster.minions.count), (1, 4));
    assert_eq!(cluster.network.pods.to_string(), "10.244.0.0/16");
    assert_eq!(cluster.network.services.to_string(), "10.0.0.0/16");
    assert_eq!(cluster.network.dns.to_string(), "10.0.0.10");
    assert_eq!(cluster.network.domain, "cluster.local");
    assert_eq!(String::from(cluster.kubernetes.service_node_port_range), "30000-32767");
    assert_eq!(cluster.kubernetes.max_pods, 110);
    assert_eq!(
        (cluster.local.engine, cluster.local.subnet, cluster.local.bundle),
        (EngineChoice::Auto, Subnet::Auto, BundleRoute::Mount)
    );
    assert_eq!((cluster.local.image, cluster.local.ssh_key), (None, None));
}

#[test]
fn no_file_an_empty_one_and_the_commented_one_are_the_same_cluster() {
    let none = load(Source::default()).unwrap().cluster;
    for text in [
        "",
        "# nothing\n",
        "---\n",
        "\u{feff}",
        "masters:\nlocal:\n#  engine: docker\n",
        defaults::TEXT,
        &defaults::TEXT.replace('\n', "\r\n"),
    ] {
        assert_eq!(load_text(text).unwrap().cluster, none, "{text}");
    }
}

/// The commented file with every `# field: value` made a field.
fn uncommented() -> String {
    let field =
        |rest: &str| rest.split_once(": ").is_some_and(|(name, _)| !name.is_empty() && name.chars().all(char::is_alphanumeric));
    let line = |line: &str| match line.trim_start().strip_prefix("# ").filter(|rest| field(rest) && line.starts_with("  ")) {
        Some(rest) => format!("{}{rest}\n", &line[..line.len() - line.trim_start().len()]),
        None => format!("{line}\n"),
    };
    defaults::TEXT.lines().map(line).collect()
}

#[test]
fn every_field_stands_in_the_commented_file() {
    fn paths(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Mapping(fields) => {
                fields.iter().for_each(|(name, value)| paths(value, &schema::join(path, name.as_str().unwrap()), into))
            }
            _ => drop(into.insert(path.to_owned())),
        }
    }
    let text = uncommented();
    let mut written = BTreeSet::new();
    paths(&serde_yaml::from_str(&text).unwrap(), "", &mut written);
    assert_eq!(written, schema::Schema::new().leaves().into_iter().collect());
    // And what stands commented would be valid; its version is the default one.
    let loaded = load_text(&text).unwrap();
    assert_eq!(loaded.cluster.kubernetes.version, defaults::cluster().unwrap().kubernetes.version);
    assert!(loaded.cluster.local.image.is_some());
    assert!(loaded.fields().unwrap().iter().all(|(_, _, origin)| matches!(origin, Origin::File { .. })));
}

#[test]
fn the_schema_knows_every_field_and_serde_every_alias() {
    let fields = serde_json::to_value(defaults::cluster().unwrap()).unwrap();
    let leaves = schema::Schema::new().leaves();
    // Blocks whose keys users choose are empty by default.
    fn values(value: &serde_json::Value) -> usize {
        value.as_object().map_or(1, |fields| fields.values().map(values).sum())
    }
    assert_eq!(leaves.len(), values(&fields));
    for (alias, field) in schema::ALIASES {
        let mut renamed = fields.clone();
        let inner = renamed.as_object_mut().unwrap().remove(field).unwrap();
        renamed[alias] = inner;
        assert_eq!(serde_json::from_value::<Cluster>(renamed).unwrap(), defaults::cluster().unwrap());
    }
    let printed = schema::json_schema().unwrap();
    for path in leaves {
        let pointer: String = path.split('.').map(|part| format!("/properties/{part}")).collect();
        let leaf = printed.pointer(&pointer).unwrap();
        assert!(leaf["description"].as_str().is_some_and(|d| d.len() > 10), "{path} has no description");
        let default = path.split('.').fold(&fields, |value, part| &value[part]);
        assert_eq!(leaf.get("default"), Some(default), "{path}");
    }
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let (_dir, mut source) = source("name: from-file\nminions:\n  count: 3\n");
    let mut seen = Vec::new();
    let mut look = |source: &Source| {
        let loaded = load(source.clone()).unwrap();
        let count = loaded.fields().unwrap().into_iter().find(|(path, ..)| path == "minions.count").unwrap();
        let origin = count.2.to_string();
        seen.push(format!("{} {}", loaded.cluster.minions.count, origin.split('/').next_back().unwrap()));
    };
    let file = source.file.take();
    look(&source);
    source.variables = variables(&[("NUM_MINIONS", "6")]);
    look(&source);
    source.variables = variables(&[("NUM_MINIONS", "6"), ("NUM_NODES", "7")]);
    look(&source);
    source.file = file;
    look(&source);
    source.variables = variables(&[("NUM_NODES", "7"), ("KUP_MINIONS", "8")]);
    look(&source);
    source.overrides = Overrides { minions: Some(9), ..Overrides::default() };
    look(&source);
    source.overrides.sets = vec!["minions.count=10".into(), "nodeGroups.count=11".into()];
    look(&source);
    assert_eq!(
        seen,
        [
            "4 default",
            "6 env NUM_MINIONS",
            "7 env NUM_NODES",
            "3 kup.yaml:3",
            "8 env KUP_MINIONS",
            "9 flag --minions",
            "11 flag --set nodeGroups.count=11"
        ]
    );
}

#[test]
fn every_flag_and_variable_reaches_its_field() {
    let overrides = Overrides {
        name: Some("n".into()),
        provider: Some(ProviderKind::Local),
        kubernetes_version: Some("1.37.1".into()),
        masters: Some(1),
        minions: Some(2),
        region: Some("eu-central-1".into()),
        profile: Some("work".into()),
        engine: Some(EngineChoice::Docker),
        sets: Vec::new(),
    };
    let flags = Source { overrides, ..Source::default() };
    let all = [
        ("NAME", "n"),
        ("PROVIDER", "local"),
        ("KUBERNETES_VERSION", "1.37.1"),
        ("MASTERS", "1"),
        ("MINIONS", "2"),
        ("REGION", "eu-central-1"),
        ("PROFILE", "work"),
        ("ENGINE", "docker"),
    ];
    let variables = all.iter().map(|(name, value)| (format!("KUP_{name}").into(), value.into())).collect();
    for source in [flags, Source { variables, ..Source::default() }] {
        let loaded = load(source).unwrap();
        for path in ["name", "provider", "kubernetes.version", "masters.count", "minions.count"] {
            assert!(loaded.is_set(path), "{path}");
        }
        for path in ["aws.region", "aws.profile", "local.engine"] {
            assert!(loaded.is_set(path), "{path}");
        }
        assert!(!loaded.is_set("network.pods"));
        assert_eq!(
            (loaded.cluster.name.as_str(), loaded.cluster.minions.count, loaded.cluster.local.engine),
            ("n", 2, EngineChoice::Docker)
        );
        assert_eq!(
            (loaded.cluster.aws.region.as_deref(), loaded.cluster.aws.profile.as_deref()),
            (Some("eu-central-1"), Some("work"))
        );
    }
}

#[test]
fn an_empty_variable_is_none_and_a_wrong_one_is_named() {
    let with = |pairs: &[(&str, &str)]| load(Source { variables: variables(pairs), ..Source::default() });
    assert_eq!(with(&[("KUP_NAME", ""), ("KUP_FILE", ""), ("NUM_NODES", "")]).unwrap().cluster, defaults::cluster().unwrap());
    for (variable, value, field) in [
        ("KUP_MINIONS", "many", "minions.count"),
        ("NUM_NODES", "-1", "minions.count"),
        ("KUP_ENGINE", "rkt", "local.engine"),
        ("KUP_NAME", "Ü", "name"),
    ] {
        let error = with(&[(variable, value)]).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.what.starts_with(&format!("environment variable {variable}: {field}: ")), "{error}");
    }
}

#[test]
fn the_file_of_the_working_directory_counts_unless_one_is_named() {
    let (dir, named) = source("name: named\n");
    fs::write(dir.path().join(defaults::FILE), "name: found\n").unwrap();
    let here = Source { directory: Some(dir.path().into()), ..Source::default() };
    let found = load(here.clone()).unwrap();
    assert_eq!((found.cluster.name.as_str(), found.implicit), ("found", true));
    let by_flag = load(Source { file: named.file.clone(), ..here.clone() }).unwrap();
    assert_eq!((by_flag.cluster.name.as_str(), by_flag.implicit, &by_flag.file), ("named", false, &named.file));
    let path = named.file.unwrap();
    let by_variable = load(Source { variables: variables(&[("KUP_FILE", path.to_str().unwrap())]), ..here.clone() }).unwrap();
    assert_eq!(by_variable.cluster.name, "named");
    // One that is there but can't be read is not passed over.
    fs::remove_file(dir.path().join(defaults::FILE)).unwrap();
    std::os::unix::fs::symlink("nowhere", dir.path().join(defaults::FILE)).unwrap();
    assert!(load(here).is_err());
}

#[test]
fn a_relative_key_is_relative_to_the_file() {
    let (dir, source) = source("local:\n  sshKey: keys/id\n");
    assert_eq!(load(source).unwrap().cluster.local.ssh_key, Some(dir.path().join("keys/id")));
    let overrides = Overrides { sets: vec!["local.sshKey=keys/id".into()], ..Overrides::default() };
    let by_flag = load(Source { overrides, ..Source::default() }).unwrap().cluster.local.ssh_key.unwrap();
    assert_eq!(by_flag, std::env::current_dir().unwrap().join("keys/id"));
}

#[test]
fn registries_come_with_their_files_and_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let pem = {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec!["r".into()]).unwrap().self_signed(&key).unwrap().pem()
    };
    write("ca.pem", &format!("# two\n{pem}{pem}"));
    write("password", "hunter22 \r\n");
    let text = "registries:\n  a.example.com:5000:\n    ca: ca.pem\n    username: me\n    passwordFile: password\n  \"b.example.com\":\n    mirrors:\n      - https://a.example.com:5000\n";
    write("kup.yaml", text);
    let with = |sets: &[&str]| {
        let overrides = Overrides { sets: sets.iter().map(|s| (*s).to_owned()).collect(), ..Overrides::default() };
        load(Source { file: Some(dir.path().join("kup.yaml")), overrides, ..Source::default() })
    };
    let loaded = with(&["registries[b.example.com].mirrors=[https://m.example.com]"]).unwrap();
    let (a, b) = (&loaded.cluster.registries["a.example.com:5000"], &loaded.cluster.registries["b.example.com"]);
    assert_eq!(a.ca, Some(dir.path().join("ca.pem")));
    assert!(a.ca_pem.as_ref().is_some_and(|text| text.contains(&pem)));
    assert_eq!(a.from_file.as_ref().unwrap().reveal(), "hunter22 ");
    assert_eq!(b.mirrors, ["https://m.example.com"]);
    let fields = loaded.fields().unwrap();
    let origin = |path: &str| fields.iter().find(|(p, ..)| p == path).unwrap_or_else(|| panic!("{path}")).2.to_string();
    assert!(origin("registries[a.example.com:5000].ca").ends_with("kup.yaml:3"));
    assert!(origin("registries[b.example.com].mirrors").starts_with("flag --set"));

    // What is kept for the next `up` is the same; what is shown has no password.
    let by_word = with(&[]).unwrap();
    write("kup.yaml", &text.replace("passwordFile: password", "password: hunter22"));
    let inline = with(&[]).unwrap().cluster;
    assert_eq!(by_word.cluster.registries["b.example.com"], inline.registries["b.example.com"]);
    let kept = serde_yaml::to_string(&inline.with_secrets().unwrap()).unwrap();
    assert_eq!(load_text(&kept).unwrap().cluster, inline);
    let shown = serde_yaml::to_string(&inline).unwrap() + &serde_json::to_string(&inline).unwrap() + &format!("{inline:?}");
    assert!(kept.contains("hunter22") && !shown.contains("hunter22"), "{shown}");
    assert!(load_text(&serde_yaml::to_string(&inline).unwrap()).unwrap_err().to_string().contains("`kup config view` shows"));

    // Files that are no certificates for everybody, or no password.
    let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
    write("kup.yaml", text);
    for (file, contents, what) in [
        ("ca.pem", format!("{pem}{key}"), "ca.pem holds a private key"),
        ("ca.pem", "words\n".to_owned(), "ca.pem holds no certificate"),
        ("ca.pem", pem.replace("MII", "AAA"), "holds a certificate that can't be read"),
        ("ca.pem", pem.replace("-----END", "-----"), "is no PEM file"),
        ("ca.pem", "x".repeat((1 << 20) + 1), "larger than 1024 KiB"),
        ("password", "\n".to_owned(), "the password is empty"),
        ("password", "one\ntwo\n".to_owned(), "several lines"),
        ("password", "x".repeat(20_000), "larger than 16 KiB"),
    ] {
        let before = fs::read(dir.path().join(file)).unwrap();
        write(file, &contents);
        let error = with(&[]).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        let line = if file == "ca.pem" {
            "kup.yaml:3:9: registries[a.example.com:5000].ca"
        } else {
            "kup.yaml:5:19: registries[a.example.com:5000].passwordFile"
        };
        assert!(error.what.contains(line) && error.what.contains(what) && !error.hints.is_empty(), "{what}: {error}");
        assert!(!error.to_string().contains("two") && !error.to_string().contains("PRIVATE"), "{error}");
        fs::write(dir.path().join(file), before).unwrap();
    }
}

#[test]
fn files_that_are_none_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::File::create(path("huge")).unwrap().set_len(100 << 20).unwrap();
    fs::write(path("large"), "#".repeat((1 << 20) + 1)).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, path("fifo"), rustix::fs::Mode::RWXU).unwrap();
    std::os::unix::fs::symlink("loop", path("loop")).unwrap();
    for (name, why) in [
        ("absent", "No such file"),
        ("", "it is a directory"),
        ("huge", "larger than 1 MiB"),
        ("large", "larger than 1 MiB"),
        ("fifo", "not a regular file"),
        ("loop", "symbolic links"),
    ] {
        let error = load(Source { file: Some(path(name)), ..Source::default() }).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.what.contains(path(name).to_str().unwrap()) && error.why.join(" ").contains(why), "{name}: {error}");
        assert!(!error.hints.is_empty(), "{error}");
    }
    fs::write(path("edge"), "#".repeat(1 << 20)).unwrap();
    assert!(load(Source { file: Some(path("edge")), ..Source::default() }).is_ok());
}

#[test]
fn a_thousand_mistakes_make_one_readable_message() {
    let text: String = (0..1000).map(|n| format!("field{n}: {n}\n")).collect();
    let message = load_text(&text).unwrap_err().to_string();
    assert!(message.contains("1000 problems") && message.contains("and 980 more") && message.lines().count() < 60, "{message}");
}

#[test]
fn examples_are_valid() {
    let mut seen = 0;
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples")).unwrap() {
        let file = entry.unwrap().path();
        let loaded = load(Source { file: Some(file.clone()), ..Source::default() }).unwrap();
        assert_eq!(Some(loaded.cluster.name.as_str()), file.file_stem().and_then(|s| s.to_str()));
        seen += 1;
    }
    assert!(seen > 0);
}

#[test]
fn as_many_machines_as_fit_are_accepted() {
    for (text, most) in [
        ("local:\n  subnet: 192.168.7.0/29\n", 3),
        ("network:\n  pods: 10.244.0.0/22\n", 3),
        ("local:\n  subnet: 172.28.0.0/16\n", 255),
        ("", 251),
    ] {
        let with = |count: u16| load_text(&format!("{text}minions:\n  count: {count}\n"));
        assert_eq!(with(most).unwrap().cluster.minions.count, most, "{text}");
        assert!(with(most + 1).is_err(), "{text}");
    }
}

#[test]
fn masters_are_bounded_by_the_one_constant() {
    let with = |count: u16| load_text(&format!("masters:\n  count: {count}\n"));
    assert!(with(validate::MAX_MASTERS).is_ok());
    for count in [0, validate::MAX_MASTERS + 1, validate::MAX_MASTERS + 2, 65535] {
        assert!(with(count).is_err(), "{count}");
    }
}

/// Fields whose values have nothing to do with each other, each valid.
fn valid() -> impl Strategy<Value = Vec<(&'static str, String)>> {
    let ranges = prop_oneof![
        Just(("10.32.0.0/11", "10.8.0.0/14", "10.8.0.10")),
        Just(("192.168.0.0/18", "192.168.64.0/24", "192.168.64.7")),
        Just(("100.64.0.0/16", "10.0.0.0/12", "10.15.255.254")),
    ];
    let fields = (
        "[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?",
        (10u16..=253, 11000u16..=20000, 20000u16..=65535),
        0u16..=60,
        ranges,
        "[a-z0-9]{1,20}(\\.[a-z0-9]([a-z-]{0,10}[a-z])?){0,4}",
        prop_oneof![Just("auto"), Just("podman"), Just("docker")],
        prop_oneof![Just("auto"), Just("172.20.7.0/24")],
        proptest::option::of("[a-z0-9][a-z0-9./_-]{0,30}(:[a-z0-9.]{1,9})?"),
        prop_oneof![Just("mount"), Just("ssh")],
        proptest::option::of("(/[a-zA-Z0-9 :#_-]{1,8}){1,3}"),
    );
    fields.prop_map(|(name, (pods, first, last), minions, (range, services, dns), domain, engine, subnet, image, bundle, key)| {
        let json = |text: String| serde_json::to_string(&text).unwrap();
        let mut all = vec![
            ("name", json(name)),
            ("kubernetes.maxPods", pods.to_string()),
            ("kubernetes.serviceNodePortRange", format!("{first}-{last}")),
            ("minions.count", minions.to_string()),
            ("network.pods", range.to_owned()),
            ("network.services", services.to_owned()),
            ("network.dns", dns.to_owned()),
            ("network.domain", json(domain)),
            ("local.engine", engine.to_owned()),
            ("local.subnet", subnet.to_owned()),
            ("local.bundle", bundle.to_owned()),
        ];
        all.extend(image.map(|image| ("local.image", json(image))));
        all.extend(key.map(|key| ("local.sshKey", json(key))));
        all
    })
}

fn nested(fields: &[(&str, String)]) -> String {
    let mut blocks = std::collections::BTreeMap::<&str, (String, Vec<(&str, String)>)>::new();
    for (path, value) in fields {
        match path.split_once('.') {
            Some((block, name)) => blocks.entry(block).or_default().1.push((name, value.clone())),
            None => blocks.entry(path).or_default().0 = format!(" {value}"),
        }
    }
    let indented = |text: String| text.lines().map(|line| format!("\n  {line}")).collect::<String>();
    blocks.iter().map(|(name, (value, inner))| format!("{name}:{value}{}\n", indented(nested(inner)))).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_config_survives_view(fields in valid()) {
        let text = nested(&fields);
        let loaded = load_text(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        for (path, value, origin) in loaded.fields().unwrap() {
            if let Some((_, written)) = fields.iter().find(|(p, _)| *p == path) {
                prop_assert_eq!(value, serde_yaml::from_str::<Value>(written).unwrap());
                let Origin::File { mark, .. } = origin else { panic!("{path} is from {origin}") };
                let line = text.lines().nth(mark.line - 1).unwrap();
                prop_assert!(line.trim_start().starts_with(path.rsplit('.').next().unwrap()), "{} is not on line {}", path, mark.line);
            }
        }
        let viewed = serde_yaml::to_string(&loaded.cluster).unwrap();
        prop_assert_eq!(load_text(&viewed).unwrap().cluster, loaded.cluster);
    }

    #[test]
    fn random_text_never_panics(text in prop_oneof!["\\PC{0,200}", "([ \\-:{}\\[\\],&*!|>'\"%@#\n\ta-c0-9]){0,200}"]) {
        if let Err(error) = load_text(&text) {
            prop_assert_eq!(error.kind, Kind::Usage);
        }
    }

    #[test]
    fn random_values_of_real_fields_are_valid_or_named(
        fields in proptest::collection::btree_map(
            proptest::sample::select(schema::Schema::new().leaves()),
            prop_oneof!["[ -~]{0,20}", "-?[0-9]{1,20}", Just("null".into()), Just("[1]".into()), Just("{a: b}".into()), "[0-9]{1,3}\\.[0-9]{1,3}\\.0\\.0/[0-9]{1,2}"],
            0..5,
        ),
    ) {
        let fields: Vec<(String, String)> = fields.into_iter().collect();
        let borrowed: Vec<(&str, String)> = fields.iter().map(|(path, value)| (path.as_str(), value.clone())).collect();
        let sets = fields.iter().map(|(path, value)| format!("{path}={value}")).collect();
        let by_flags = load(Source { overrides: Overrides { sets, ..Overrides::default() }, ..Source::default() });
        for outcome in [load_text(&nested(&borrowed)), by_flags] {
            match outcome {
                // What is accepted has to be accepted again.
                Ok(loaded) => prop_assert_eq!(load_text(&serde_yaml::to_string(&loaded.cluster).unwrap()).unwrap().cluster, loaded.cluster),
                Err(error) => {
                    prop_assert_eq!(error.kind, Kind::Usage);
                    let text = error.to_string();
                    prop_assert!(text.contains("kup.yaml:") || text.contains("flag --set"), "{}", text);
                }
            }
        }
    }

    #[test]
    fn random_flags_never_panic(set in "\\PC{0,60}", name in any::<String>()) {
        let overrides = Overrides { sets: vec![set], name: Some(name), ..Overrides::default() };
        let _ = load(Source { overrides, ..Source::default() });
    }
}
