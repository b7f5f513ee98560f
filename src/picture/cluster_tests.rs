use super::super::check::{leave, readable};
use super::*;

fn pod(namespace: &str, name: impl Into<String>) -> Pod {
    Pod { namespace: namespace.into(), name: name.into(), well: true }
}

fn machine(cluster: &str, role: &str, nth: usize, pods: Vec<Pod>) -> Machine {
    Machine {
        name: format!("{cluster}-{role}-{nth}"),
        role: role.into(),
        address: format!("172.29.255.{}", 100 + nth),
        state: State::Ready,
        version: Some("v1.37.1".into()),
        pods: Some(pods),
    }
}

fn cluster(name: &str, masters: usize, minions: usize) -> Cluster {
    let mut machines = Vec::new();
    if masters > 1 {
        let mut balancer = machine(name, "balancer", 1, vec![]);
        (balancer.pods, balancer.version, balancer.state) = (None, None, State::Running);
        machines.push(balancer);
    }
    for n in 1..=masters {
        machines.push(machine(name, "master", n, vec![]));
    }
    for n in 1..=minions {
        let mut pods: Vec<Pod> = (0..n % 4).map(|i| pod("kube-system", format!("coredns-7d8f9c6b5d-{n}x{i}qz"))).collect();
        if n == 3 {
            pods.extend((0..40).map(|i| {
                pod(
                    ["default", "monitoring", "a-namespace-with-a-rather-long-name-of-63-characters-as-is-allowed"][i % 3],
                    format!("web-{i}"),
                )
            }));
            pods[5].well = false;
        }
        machines.push(machine(name, "minion", n, pods));
    }
    let endpoint = "https://172.29.255.101:6443".to_owned();
    let (provider, version, time) = ("local".to_owned(), "1.37.1".to_owned(), "2026-11-21 05:00:00 UTC".to_owned());
    Cluster { name: name.into(), provider, version, endpoint, machines, time, ..Cluster::default() }
}

#[test]
fn clusters_of_all_sizes_are_readable() {
    let long = "a-cluster-whose-name-has-40-characters-x";
    for (name, masters, minions) in
        [("kubernetes", 1, 0), ("kubernetes", 1, 4), (long, 3, 3), (long, 5, 1), ("kubernetes", 1, 20)]
    {
        let cluster = cluster(name, masters, minions);
        let svg = draw(&cluster);
        leave(&format!("cluster-{masters}-{minions}"), &svg);
        let words = readable(&svg);
        for machine in &cluster.machines {
            let short = machine.name.strip_prefix(&format!("{name}-")).unwrap();
            assert!(words.iter().any(|w| w == short), "{short}: {words:#?}");
            assert!(words.iter().any(|w| w.starts_with(&machine.address)), "{}: {words:#?}", machine.address);
            for pod in machine.pods.iter().flatten() {
                assert!(svg.contains(&format!("{}/{}", pod.namespace, pod.name)), "{}", pod.name);
            }
        }
        assert!(words.contains(&cluster.endpoint));
    }
}

#[test]
fn what_is_not_well_is_seen() {
    let mut cluster = cluster("c", 1, 3);
    cluster.machines[0].state = State::NotReady;
    cluster.machines[1].state = State::Stopped;
    cluster.machines[2].state = State::Cordoned;
    cluster.waiting = vec![pod("default", "too-big-1")];
    let long = "a-pod-whose-name-is-as-long-as-names-of-pods-may-be-".repeat(5);
    cluster.machines[2].pods = Some(vec![Pod { well: false, ..pod("default", long) }]);
    let svg = draw(&cluster);
    leave("cluster-unwell", &svg);
    let words = readable(&svg);
    for word in ["NotReady", "stopped", "cordoned", "on no node yet: default/too-big-1", "1 pod, 1 not ready", "14 in default"] {
        assert!(words.iter().any(|w| w.starts_with(word) || w == word), "{word}: {words:#?}");
    }
    cluster.silent = Some("the API does not answer: <&>".into());
    for machine in &mut cluster.machines {
        (machine.pods, machine.version, machine.state) = (None, None, State::Running);
    }
    let words = readable(&draw(&cluster));
    assert!(words.iter().any(|w| w == "the API does not answer: <&>"), "{words:#?}");
    assert!(words.iter().any(|w| w.contains("pods unknown")));
}

#[test]
fn pods_that_are_too_many_are_counted() {
    let told = |pods: &[Pod]| entries(pods).iter().filter(|e| matches!(e, Entry::Pod(_))).count();
    let many = |n: usize| (0..n).map(|i| pod(&format!("n{}", i % 20), format!("p{i}"))).collect::<Vec<_>>();
    assert_eq!((told(&many(NAMED)), told(&many(NAMED + 1))), (NAMED, 0));
    let all = many(50);
    let shown = entries(&all);
    assert_eq!(shown.len(), NAMED);
    assert!(matches!(shown.last(), Some(Entry::More(13))));
}

#[test]
fn long_names_are_cut_in_the_middle() {
    let words = "kube-system/a-deployment-with-a-rather-long-name-5d78c9869d-abcde";
    let cut = middle_cut(words, 10.0, CARD - 2.0 * INSET);
    assert!(cut.starts_with("kube-system/a-dep") && cut.contains('…') && cut.ends_with("c9869d-abcde"), "{cut}");
}
