//! Services, and the names and addresses by which pods and the outside find them.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use super::yaml::{EVERYWHERE, spread, then_wait, tools, tools_pod, web_controller, web_deployment, web_pod, web_service};
use crate::ensure;
use crate::support::api::{name, text};
use crate::support::checks::{Call, World, parse};
use crate::support::{Check, eventually};

/// The range of ports that the story's cluster is configured with.
pub const NODE_PORTS: std::ops::RangeInclusive<u16> = 31000..=31063;

/// Enough calls that a backend of four, chosen at random, is missed once in ten million runs.
const MANY: usize = 64;

/// One Service, chosen by label, over the pods of two controllers; TCP and UDP.
pub async fn balance_over_two_controllers(w: &World<'_>) -> Check {
    w.apply(&web_controller("old", 2, "app: both, from: old", &spread("from: old"))).await?;
    w.apply(&web_deployment("new", 2, "app: both, from: new", &spread("from: new"))).await?;
    w.apply(&web_pod("stranger", "app: stranger", "")).await?;
    w.apply(&web_service("both", "app: both", "")).await?;
    let expected: BTreeSet<String> = w.ready("app=both", 4).await?.iter().map(name).collect();
    w.pod("stranger").await?;
    let service = w.cluster.api.get(&w.path("services/both")).await?;
    let address = text(&service["spec"]["clusterIP"]);
    for call in [Call::http(&address, 80), Call::udp(&address, 81)] {
        // The endpoints are there a moment after the pods are Ready.
        eventually(&format!("all four pods to answer by {}", call.protocol), async || {
            let dialled = w.dial("stranger", &call.times(MANY)).await?;
            let seen: BTreeSet<String> = dialled.responses.iter().cloned().collect();
            Ok(if dialled.errors.is_empty() && seen == expected {
                Ok(())
            } else {
                Err(format!("{seen:?} of {expected:?}, errors {:?}", dialled.errors))
            })
        })
        .await?;
    }
    Ok(())
}

/// On every minion: its own processes, its other pods and the pod itself reach a pod through its Service.
pub async fn reach_a_pod_from_its_own_node(w: &World<'_>) -> Check {
    for (i, node) in w.cluster.minions().enumerate() {
        let pinned = format!("nodeSelector: {{ kubernetes.io/hostname: {} }},", node.name);
        w.apply(&web_pod(&format!("self-{i}"), &format!("app: self-{i}"), &pinned)).await?;
        w.apply(&web_pod(&format!("other-{i}"), "app: other", &pinned)).await?;
        w.apply(&web_service(&format!("self-{i}"), &format!("app: self-{i}"), "")).await?;
    }
    for (i, node) in w.cluster.minions().enumerate() {
        let (own, other) = (format!("self-{i}"), format!("other-{i}"));
        w.pod(&own).await?;
        w.pod(&other).await?;
        let address = text(&w.cluster.api.get(&w.path(&format!("services/{own}"))).await?["spec"]["clusterIP"]);
        for from in [&own, &other] {
            for call in [Call::http(&address, 80), Call::udp(&address, 81)] {
                let seen = w.reaches(from, &call.times(3)).await?;
                ensure!(seen.iter().all(|s| *s == own), "{from} calls {own} through its Service and gets {seen:?}");
            }
        }
        let seen = w.cluster.read(node, &format!("curl -sS --max-time 10 http://{address}/hostname")).await?;
        ensure!(seen == own, "{} itself gets {seen:?} from {own}", node.name);
    }
    Ok(())
}

/// A Service without selector, whose endpoint someone else writes down: here a server outside the pods' network.
pub async fn without_selector(w: &World<'_>) -> Check {
    let outside = "hostNetwork: true, nodeSelector: { node-role.kubernetes.io/control-plane: \"\" },";
    let server = web_pod("outside", "app: outside", &format!("{outside} {EVERYWHERE}"))
        .replace("[netexec]", "[netexec, --http-port=18080, --udp-port=18081]")
        .replace("port: 8080", "port: 18080");
    w.apply(&server).await?;
    w.apply(&web_pod("inside", "app: inside", "")).await?;
    let address = w.cluster.master().address;
    w.apply("{ apiVersion: v1, kind: Service, metadata: { name: legacy }, spec: { ports: [{ name: web, port: 80, targetPort: 18080 }] } }").await?;
    w.apply(&format!(
        "{{ apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {{ name: legacy-1, labels: {{ kubernetes.io/service-name: legacy }} }}, \
         addressType: IPv4, ports: [{{ name: web, port: 18080 }}], endpoints: [{{ addresses: [\"{address}\"] }}] }}"
    ))
    .await?;
    w.pod("outside").await?;
    w.pod("inside").await?;
    let seen = w.reaches("inside", &Call::http("legacy", 80)).await?;
    ensure!(seen == [w.cluster.master().name.clone()], "the Service without selector answers {seen:?}");
    Ok(())
}

/// ExternalName: a name that stands for another.
pub async fn external_name(w: &World<'_>) -> Check {
    w.apply(&web_pod("target", "app: target", "")).await?;
    w.apply(&web_service("target", "app: target", "")).await?;
    let target = format!("target.{}.svc.cluster.local", w.namespace);
    w.apply(&format!(
        "{{ apiVersion: v1, kind: Service, metadata: {{ name: alias }}, spec: {{ type: ExternalName, externalName: {target} }} }}"
    ))
    .await?;
    w.apply(&tools_pod("asker", &[tools("asker", &then_wait(":"), "", "")], "", "")).await?;
    w.pod("target").await?;
    w.pod("asker").await?;
    let seen = w.reaches("target", &Call::http("alias", 80)).await?;
    ensure!(seen == ["target"], "alias answers {seen:?}");
    let canonical =
        w.cluster.kubectl(&["-n", &w.namespace, "exec", "asker", "--", "getent", "ahostsv4", "alias"]).await?.ok("getent")?;
    ensure!(canonical.contains(&target), "the canonical name of alias is not {target}: {canonical}");
    Ok(())
}

/// Names of Services and pods, from short to whole, across namespaces, and backwards.
pub async fn have_dns_names(w: &World<'_>) -> Check {
    w.apply(&web_deployment("named", 2, "app: named", "")).await?;
    w.apply(&web_service("named", "app: named", "")).await?;
    w.apply(&web_service("headless", "app: named", "clusterIP: None,")).await?;
    w.apply(&web_pod("member", "app: member", "hostname: first, subdomain: members,")).await?;
    w.apply(&web_service("members", "app: member", "clusterIP: None,")).await?;
    w.apply(&tools_pod("asker", &[tools("asker", &then_wait(":"), "", "")], "", "")).await?;
    let pods = w.ready("app=named", 2).await?;
    let member = w.pod("member").await?;
    w.pod("asker").await?;
    let service = text(&w.cluster.api.get(&w.path("services/named")).await?["spec"]["clusterIP"]);
    let namespace = &w.namespace;
    let ask = async |what: &str| -> Check<BTreeSet<String>> {
        let output = w.cluster.kubectl(&["-n", namespace, "exec", "asker", "--", "getent", "ahostsv4", what]).await?;
        Ok(output.stdout.lines().filter_map(|l| l.split_whitespace().next()).map(str::to_owned).collect())
    };
    let is = async |what: &str, expected: BTreeSet<String>| -> Check {
        eventually(&format!("{what} to be {expected:?}"), async || {
            let seen = ask(what).await?;
            Ok(if seen == expected { Ok(()) } else { Err(format!("{seen:?}")) })
        })
        .await
    };
    for known in [
        "named".to_owned(),
        format!("named.{namespace}"),
        format!("named.{namespace}.svc"),
        format!("named.{namespace}.svc.cluster.local."),
    ] {
        is(&known, BTreeSet::from([service.clone()])).await?;
    }
    let kubernetes = text(&w.cluster.api.get("/api/v1/namespaces/default/services/kubernetes").await?["spec"]["clusterIP"]);
    is("kubernetes.default", BTreeSet::from([kubernetes])).await?;
    is("headless", pods.iter().map(|p| text(&p["status"]["podIP"])).collect()).await?;
    is("first.members", BTreeSet::from([text(&member["status"]["podIP"])])).await?;
    let missing = ask("no-such-service").await?;
    ensure!(missing.is_empty(), "no-such-service is {missing:?}");
    let backwards =
        w.cluster.kubectl(&["-n", namespace, "exec", "asker", "--", "getent", "hosts", &service]).await?.ok("getent")?;
    ensure!(backwards.contains(&format!("named.{namespace}.svc.cluster.local")), "{service} backwards is {backwards}");
    Ok(())
}

/// A pod's environment names the Services that were there before it.
pub async fn are_in_the_environment(w: &World<'_>) -> Check {
    w.apply(&web_service("red-is", "app: none", "")).await?;
    let service = text(&w.cluster.api.get(&w.path("services/red-is")).await?["spec"]["clusterIP"]);
    // The kubelet's own view of Services may be a moment behind: a pod that comes too early is made again.
    eventually("the Service in a new pod's environment", async || {
        w.apply(&tools_pod("env", &[tools("env", "env", "", "")], "", "restartPolicy: Never,")).await?;
        let ended = w.pod_until("env", "ended", |p| p["status"]["phase"] == "Succeeded").await?;
        let log = w.cluster.api.text(&w.path(&format!("pods/{}/log", name(&ended)))).await?;
        let expected = [
            format!("RED_IS_SERVICE_HOST={service}"),
            "RED_IS_SERVICE_PORT=80".into(),
            "RED_IS_SERVICE_PORT_UDP=81".into(),
            format!("RED_IS_PORT_80_TCP_ADDR={service}"),
            format!("RED_IS_PORT_81_UDP=udp://{service}:81"),
            "KUBERNETES_SERVICE_PORT=443".into(),
        ];
        let missing: Vec<_> = expected.iter().filter(|e| !log.lines().any(|l| l == e.as_str())).collect();
        if missing.is_empty() {
            return Ok(Ok(()));
        }
        w.cluster.api.delete(&w.path("pods/env?gracePeriodSeconds=0")).await?;
        Ok(Err(format!("{missing:?} missing in:\n{log}")))
    })
    .await
}

/// A NodePort answers on every node, the master included, by TCP and UDP, from outside; only ports of the range are given.
pub async fn answer_on_every_nodes_port(w: &World<'_>) -> Check {
    w.apply(&web_pod("door", "app: door", "")).await?;
    w.apply(&web_service("door", "app: door", "type: NodePort,")).await?;
    w.pod("door").await?;
    let service = w.cluster.api.get(&w.path("services/door")).await?;
    let ports: Vec<u16> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| u16::try_from(p["nodePort"].as_u64()?).ok())
        .collect();
    ensure!(
        ports.len() == 2 && ports.iter().all(|p| NODE_PORTS.contains(p)),
        "the node ports are {ports:?}, not of {NODE_PORTS:?}"
    );
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).pool_max_idle_per_host(0).build()?;
    for node in &w.cluster.nodes {
        let url = format!("http://{}:{}/hostname", node.address, ports[0]);
        eventually(&format!("{url} ({}) to answer", node.name), async || {
            let seen = http.get(&url).send().await?.text().await?;
            Ok(if seen == "door" { Ok(()) } else { Err(seen) })
        })
        .await?;
        eventually(&format!("UDP port {} of {} to answer", ports[1], node.name), async || {
            let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await?;
            socket.send_to(b"hostname", (node.address, ports[1])).await?;
            let mut buffer = [0; 64];
            let length = tokio::time::timeout(Duration::from_secs(2), socket.recv(&mut buffer)).await??;
            let seen = String::from_utf8_lossy(&buffer[..length]).into_owned();
            Ok(if seen == "door" { Ok(()) } else { Err(seen) })
        })
        .await?;
    }
    // Just beside the configured range, though inside the usual one.
    for port in [NODE_PORTS.start() - 1, NODE_PORTS.end() + 1] {
        let service = &parse(&web_service("outside", "app: door", "type: NodePort,"))?[0];
        let mut service = service.clone();
        service["spec"]["ports"] = json!([{ "port": 80, "nodePort": port }]);
        match w.cluster.api.refusal(&w.path("services"), &service).await? {
            Some((422, why)) if why.contains("31000-31063") => {}
            other => return Err(format!("a Service at node port {port} gives {other:?}").into()),
        }
    }
    Ok(())
}
