//! The config of clusters on AWS: groups, what follows from other fields, and kube-up's variables.

use std::path::Path;

use kup::cluster::spec::ProviderKind;
use kup::cluster::{Loaded, Overrides, Source, kube_up, load};
use kup::error::Kind;

use super::{load_text, source, variables};

/// A cluster on AWS by kube-up's variables alone.
fn by_variables(pairs: &[(&str, &str)]) -> kup::error::Result<Loaded> {
    let all: Vec<_> = [("KUBERNETES_PROVIDER", "aws")].into_iter().chain(pairs.iter().copied()).collect();
    load(Source { variables: variables(&all), ..Source::default() })
}

/// A field as JSON.
fn field(loaded: &Loaded, path: &str) -> String {
    let fields = loaded.fields().unwrap();
    let (_, value, _) = fields.into_iter().find(|(p, ..)| p == path).unwrap_or_else(|| panic!("{path}"));
    serde_json::to_string(&value).unwrap()
}

#[test]
fn every_variable_of_kube_up_reaches_its_field() {
    for (variable, text, path, value) in [
        ("KUBERNETES_PROVIDER", "aws", "provider", r#""aws""#),
        ("NUM_NODES", "7", "minions.count", "7"),
        ("NUM_MINIONS", "7", "minions.count", "7"),
        ("CLUSTER_IP_RANGE", "10.240.0.0/16", "network.pods", r#""10.240.0.0/16""#),
        ("SERVICE_CLUSTER_IP_RANGE", "10.0.0.0/20", "network.services", r#""10.0.0.0/20""#),
        ("DNS_SERVER_IP", "10.0.0.53", "network.dns", r#""10.0.0.53""#),
        ("DNS_DOMAIN", "kube.internal", "network.domain", r#""kube.internal""#),
        ("CLUSTER_ID", "demo", "name", r#""demo""#),
        ("KUBE_AWS_INSTANCE_PREFIX", "demo", "name", r#""demo""#),
        ("KUBE_AWS_ZONE", "eu-west-1c", "aws.zones", r#"["eu-west-1c"]"#),
        ("KUBE_AWS_ZONE", "eu-west-1c", "aws.region", r#""eu-west-1""#),
        ("MASTER_SIZE", "m3.medium", "aws.masters.type", r#""m3.medium""#),
        ("MASTER_ROOT_DISK_SIZE", "8", "aws.masters.rootVolume", "8"),
        ("MASTER_DISK_SIZE", "30", "aws.etcdVolume", "30"),
        ("NODE_SIZE", "t2.micro", "aws.minions.type", r#""t2.micro""#),
        ("MINION_SIZE", "t2.micro", "aws.minions.type", r#""t2.micro""#),
        ("NODE_ROOT_DISK_SIZE", "40", "aws.minions.rootVolume", "40"),
        ("MINION_ROOT_DISK_SIZE", "40", "aws.minions.rootVolume", "40"),
        ("KUBE_VPC_CIDR_BASE", "172.21", "aws.vpc.cidr", r#""172.21.0.0/16""#),
        ("SSH_CIDR", "198.51.100.7/32", "aws.access.ssh", r#"["198.51.100.7/32"]"#),
        ("HTTP_API_CIDR", "0.0.0.0/0", "aws.access.api", r#"["0.0.0.0/0"]"#),
        ("AWS_SSH_KEY", "/home/you/key", "aws.sshKey", r#""/home/you/key""#),
        ("AWS_IMAGE", "ami-0123456789abcdef0", "aws.image", r#""ami-0123456789abcdef0""#),
        ("KUBE_NODE_IMAGE", "ami-0123456789abcdef0", "aws.image", r#""ami-0123456789abcdef0""#),
    ] {
        let loaded = by_variables(&[(variable, text)]).unwrap_or_else(|e| panic!("{variable}: {e}"));
        assert_eq!(field(&loaded, path), value, "{variable}");
        assert_eq!(loaded.origins[path].to_string(), format!("env {variable}"));
        assert_eq!(loaded.notes, Vec::<String>::new(), "{variable}");
    }
    let subnets = by_variables(&[("VPC_ID", "vpc-01234567"), ("SUBNET_ID", "subnet-01234567")]).unwrap();
    assert_eq!(
        (field(&subnets, "aws.vpc.id"), field(&subnets, "aws.vpc.subnets")),
        (r#""vpc-01234567""#.into(), r#"["subnet-01234567"]"#.into())
    );
}

#[test]
fn what_kube_up_had_and_kup_has_not_is_said() {
    for (pairs, names, said) in [
        (&[("NODE_SPOT_PRICE", "0.01")][..], "NODE_SPOT_PRICE", "aws.groups[NAME].spot"),
        (&[("MASTER_RESERVED_IP", "auto")], "MASTER_RESERVED_IP", "kept"),
        (&[("AWS_IMAGE", "k8s-debian")], "AWS_IMAGE", "aws.image"),
        (&[("KUBE_ENABLE_NODE_PUBLIC_IP", "false")], "KUBE_ENABLE_NODE_PUBLIC_IP", "aws.access"),
        (&[("NETWORK_PROVIDER", "kubenet")], "NETWORK_PROVIDER", "flannel"),
        (&[("KUBE_CONTAINER_RUNTIME", "rkt")], "KUBE_CONTAINER_RUNTIME", "containerd"),
        (&[("NUM_MINIONS", "3"), ("NUM_NODES", "5")], "NUM_MINIONS", "NUM_NODES says something else"),
        (&[("CLUSTER_ID", "a"), ("KUBE_AWS_INSTANCE_PREFIX", "b")], "CLUSTER_ID", "KUBE_AWS_INSTANCE_PREFIX says"),
        (&[("KUBE_AWS_ZONE", "us-west-2a"), ("KUP_REGION", "eu-west-1")], "KUBE_AWS_ZONE", "eu-west-1"),
    ] {
        let loaded = by_variables(pairs).unwrap();
        let [note] = &loaded.notes[..] else { panic!("{pairs:?}: {:?}", loaded.notes) };
        assert!(note.contains(&format!("{names} has no effect")) && note.contains(said), "{note}");
    }
    for quiet in
        [("KUBE_ENABLE_NODE_PUBLIC_IP", "true"), ("NETWORK_PROVIDER", "flannel"), ("NUM_NODES", "5"), ("NODE_SPOT_PRICE", "")]
    {
        assert_eq!(by_variables(&[quiet]).unwrap().notes, Vec::<String>::new(), "{quiet:?}");
    }
    assert_eq!(
        by_variables(&[("KUBE_AWS_ZONE", "us-west-2a"), ("KUP_REGION", "eu-west-1")]).unwrap().cluster.aws.zones,
        Vec::<String>::new()
    );
}

#[test]
fn kube_ups_variables_give_way_and_hurt_nobody_else() {
    // Nonsense in all of them: another provider does not look, or something else was said.
    let nonsense: Vec<_> = kube_up::names().map(|name| (name, "~nonsense~")).collect();
    for name in kube_up::names() {
        let everybodys = ["KUBERNETES_PROVIDER", "NUM_", "CLUSTER_IP", "SERVICE_CLUSTER", "DNS_"];
        if !everybodys.iter().any(|start| name.starts_with(start)) {
            let loaded = load(Source { variables: variables(&[(name, "~nonsense~")]), ..Source::default() }).unwrap();
            assert_eq!((loaded.cluster.provider, loaded.notes.len()), (ProviderKind::Local, 0), "{name}");
        }
    }
    let text = "name: n\nprovider: aws\nminions: { count: 2 }\nnetwork: { pods: 10.244.0.0/16, services: 10.0.0.0/16, dns: 10.0.0.10, domain: c.local }\naws:\n  zones: [eu-west-1a]\n  sshKey: k\n  image: al2023\n  etcdVolume: 5\n  masters: { type: t3.large, rootVolume: 9 }\n  minions: { type: t3.large, rootVolume: 9 }\n  access: { ssh: [10.0.0.0/8], api: [10.0.0.0/8] }\n  vpc: { cidr: 172.30.0.0/16, id: null, subnets: [] }\n";
    let (_dir, file) = source(text);
    let plain = load(file.clone()).unwrap().cluster;
    let beside = load(Source { variables: variables(&nonsense), ..file }).unwrap();
    assert_eq!(beside.cluster, plain);
    // Only what has no equal is still told.
    assert!(beside.notes.len() > 10 && beside.notes.iter().all(|note| note.contains("has no effect")), "{:?}", beside.notes);

    for (variable, value, path) in [
        ("KUBERNETES_PROVIDER", "gce", "provider"),
        ("KUBE_AWS_ZONE", "us-west-2", "aws.zones"),
        ("KUBE_VPC_CIDR_BASE", "172", "aws.vpc.cidr"),
        ("MASTER_SIZE", "t2.micro", "aws.masters.type"),
        ("MASTER_DISK_SIZE", "20GB", "aws.etcdVolume"),
        ("AWS_IMAGE", "ami-x", "aws.image"),
        ("VPC_ID", "vpc-1", "aws.vpc.id"),
        ("SSH_CIDR", "here", "aws.access.ssh"),
    ] {
        let pairs = [("KUBERNETES_PROVIDER", "aws"), (variable, value)];
        let error = load(Source { variables: variables(&pairs), ..Source::default() }).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.to_string().contains(&format!("environment variable {variable}: {path}: ")), "{error}");
    }
}

#[test]
fn groups_say_how_many_minions_there_are() {
    let text = "provider: aws\naws:\n  minions: { type: m5.large, rootVolume: 50 }\n  groups:\n    web: { count: 3, types: [t3.small] }\n    batch:\n    more: {}\n";
    let loaded = load_text(text).unwrap();
    let cluster = &loaded.cluster;
    assert_eq!(cluster.minions.count, 5);
    let groups = cluster.groups();
    let shown: Vec<_> = groups.iter().map(|g| (g.name.as_str(), g.count, g.types.join(","), g.root_volume)).collect();
    assert_eq!(
        shown,
        [("batch", 1, "m5.large".into(), 50), ("more", 1, "m5.large".into(), 50), ("web", 3, "t3.small".into(), 50)]
    );
    assert_eq!(loaded.origins["aws.groups[web].types"].to_string().rsplit(':').next(), Some("5"));
    assert_eq!(loaded.origins["aws.groups[batch].types"], loaded.origins["aws.minions.type"]);
    assert!(!loaded.is_set("aws.groups[batch].count") && !loaded.is_set("minions.count"));
    // What is viewed or kept says the sum, and is accepted again; another number is not, and kube-up's gives way.
    let viewed = serde_yaml::to_string(cluster).unwrap();
    assert!(viewed.contains("count: 5"), "{viewed}");
    assert_eq!(load_text(&viewed).unwrap().cluster, *cluster);
    assert!(
        load_text(&format!("minions: {{ count: 4 }}\n{text}")).unwrap_err().what.contains("not the sum of the groups' counts, 5")
    );
    let (_dir, file) = source(text);
    let beside = load(Source { variables: variables(&[("NUM_NODES", "9")]), ..file.clone() }).unwrap();
    assert_eq!((&beside.cluster, beside.notes.len()), (cluster, 1));
    let overrides =
        Overrides { sets: vec!["aws.groups[web].count=7".into(), "aws.groups[new].spot=100".into()], ..Overrides::default() };
    assert_eq!(load(Source { overrides, ..file }).unwrap().cluster.minions.count, 10);
    // On this machine there are no groups.
    assert_eq!(load_text(&text.replace("provider: aws", "provider: local")).unwrap().cluster.minions.count, 4);
}

#[test]
fn the_region_follows_from_the_zones_and_the_key_is_relative_to_the_file() {
    let (dir, file) = source("provider: aws\naws:\n  zones: [ap-southeast-7b]\n  sshKey: keys/id\n");
    let loaded = load(file).unwrap();
    assert_eq!(loaded.cluster.aws.region.as_deref(), Some("ap-southeast-7"));
    assert_eq!(loaded.origins["aws.region"], loaded.origins["aws.zones"]);
    assert_eq!(loaded.cluster.aws.ssh_key, dir.path().join("keys/id"));
    let by_default = load_text("provider: aws\n").unwrap().cluster.aws;
    assert_eq!(by_default.region, None);
    assert!(by_default.ssh_key.is_absolute() && by_default.ssh_key.ends_with(".ssh/kube_aws_rsa"));
    // Nobody else needs a home directory for it.
    assert_eq!(load_text("").unwrap().cluster.aws.ssh_key, Path::new("~/.ssh/kube_aws_rsa"));
}

#[test]
fn lists_may_be_flags() {
    let with = |set: &str| {
        let overrides = Overrides { provider: Some(ProviderKind::Aws), sets: vec![set.into()], ..Overrides::default() };
        load(Source { overrides, ..Source::default() }).map(|loaded| loaded.cluster.aws.zones)
    };
    let two = ["us-west-2a", "us-west-2b"].map(String::from).to_vec();
    for set in ["aws.zones=[us-west-2a, us-west-2b]", "aws.zones=us-west-2a,us-west-2b", "aws.zones= us-west-2a , us-west-2b,"] {
        assert_eq!(with(set).unwrap(), two, "{set}");
    }
    assert_eq!(with("aws.zones=[]").unwrap(), with("aws.zones=").unwrap());
    for set in ["aws.zones=[us-west-2a", "aws.zones={a: b}", "aws.zones=[1]", "aws.zones=[[us-west-2a]]"] {
        assert!(with(set).is_err(), "{set}");
    }
}

#[test]
fn as_many_machines_as_fit_are_accepted_on_aws() {
    for (text, most) in [
        ("", 249),
        ("aws: { zones: [us-west-2a, us-west-2b] }\n", 255),
        ("aws: { zones: [us-west-2a, us-west-2b] }\nnetwork: { pods: 10.240.0.0/12 }\n", 499),
        ("aws: { vpc: { id: vpc-01234567, subnets: [subnet-01234567] } }\nnetwork: { pods: 10.240.0.0/12 }\n", 4095),
    ] {
        let with = |count: u16| load_text(&format!("provider: aws\n{text}minions: {{ count: {count} }}\n"));
        assert_eq!(with(most).unwrap_or_else(|e| panic!("{text}: {e}")).cluster.minions.count, most, "{text}");
        assert!(with(most + 1).is_err(), "{text}");
    }
}

#[test]
fn masters_that_do_not_bear_the_loss_of_a_zone_are_noted() {
    for (masters, zones, noted) in [(3, "", true), (3, "a, b", true), (3, "a, b, c", false), (1, "a, b", false), (5, "a", true)] {
        let zones: Vec<_> = zones.split(", ").filter(|z| !z.is_empty()).map(|z| format!("us-west-2{z}")).collect();
        let text = format!("provider: aws\nmasters: {{ count: {masters} }}\naws: {{ zones: [{}] }}\n", zones.join(", "));
        assert_eq!(load_text(&text).unwrap().notes.len(), usize::from(noted), "{text}");
    }
}
