//! Pieces of manifests that several checks use.

/// A web server that answers with its pod's name, by HTTP on 8080 and UDP on 8081, and that calls others when asked. Goes under
/// `containers:`.
pub const NETEXEC: &str = "
{
  name: web,
  image: AGNHOST,
  args: [netexec],
  readinessProbe: { httpGet: { path: /healthz, port: 8080 }, periodSeconds: 1 },
}";

/// A pod template's spec with [`NETEXEC`] as its only container, as flow YAML.
pub fn web_spec(extra: &str) -> String {
    format!("{{ terminationGracePeriodSeconds: 1, {extra} containers: [{NETEXEC}] }}").replace('\n', " ")
}

/// A pod that runs [`NETEXEC`].
pub fn web_pod(name: &str, labels: &str, extra: &str) -> String {
    format!("{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ {labels} }} }}, spec: {} }}", web_spec(extra))
}

/// A replication controller of web pods with one label.
pub fn web_controller(name: &str, replicas: u32, labels: &str, extra: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: ReplicationController, metadata: {{ name: {name} }}, spec: {{ replicas: {replicas}, \
         selector: {{ {labels} }}, template: {{ metadata: {{ labels: {{ {labels} }} }}, spec: {} }} }} }}",
        web_spec(extra)
    )
}

/// A Deployment of web pods.
pub fn web_deployment(name: &str, replicas: u32, labels: &str, extra: &str) -> String {
    format!(
        "{{ apiVersion: apps/v1, kind: Deployment, metadata: {{ name: {name} }}, spec: {{ replicas: {replicas}, \
         selector: {{ matchLabels: {{ {labels} }} }}, template: {{ metadata: {{ labels: {{ {labels} }} }}, spec: {} }} }} }}",
        web_spec(extra)
    )
}

/// A Service on port 80 (and UDP 81) for [`NETEXEC`]'s ports.
pub fn web_service(name: &str, selector: &str, extra: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Service, metadata: {{ name: {name} }}, spec: {{ selector: {{ {selector} }}, {extra} ports: [\
         {{ name: web, port: 80, targetPort: 8080 }}, {{ name: udp, port: 81, targetPort: 8081, protocol: UDP }}] }} }}"
    )
}

/// Spreads pods with a label evenly over the nodes that may run them.
pub fn spread(labels: &str) -> String {
    format!(
        "topologySpreadConstraints: [{{ maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: DoNotSchedule, \
         nodeTaintsPolicy: Honor, labelSelector: {{ matchLabels: {{ {labels} }} }} }}],"
    )
}

/// Lets pods run on the master too.
pub const EVERYWHERE: &str = "tolerations: [{ operator: Exists }],";

/// agnhost is one program and nothing else: a shell, tar and their like come from the node. Goes under `volumeMounts:`.
pub const TOOL_MOUNTS: &str = "\
    { name: usr, mountPath: /usr, readOnly: true }, { name: usr, mountPath: /bin, subPath: bin, readOnly: true }, \
    { name: usr, mountPath: /lib, subPath: lib, readOnly: true }, { name: usr, mountPath: /lib64, subPath: lib64, readOnly: true }";

/// The volume of [`TOOL_MOUNTS`].
pub const TOOL_VOLUME: &str = "{ name: usr, hostPath: { path: /usr } }";

/// A container with the node's tools that runs a shell command.
pub fn tools(name: &str, command: &str, mounts: &str, extra: &str) -> String {
    format!(
        "{{ name: {name}, image: AGNHOST, command: [/bin/sh, -c, {command:?}], volumeMounts: [{mounts} {TOOL_MOUNTS}], {extra} }}"
    )
}

/// A pod of such containers.
pub fn tools_pod(name: &str, containers: &[String], volumes: &str, extra: &str) -> String {
    format!(
        "{{ apiVersion: v1, kind: Pod, metadata: {{ name: {name}, labels: {{ app: {name} }} }}, spec: {{ terminationGracePeriodSeconds: 1, {extra} \
         volumes: [{volumes} {TOOL_VOLUME}], containers: [{}] }} }}",
        containers.join(", ")
    )
}

/// A shell command that ends when it is told to, after doing this.
pub fn then_wait(command: &str) -> String {
    format!("trap 'exit 0' TERM; {command}; while :; do sleep 1000 & wait $!; done")
}
