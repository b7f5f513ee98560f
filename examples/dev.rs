use kup::{bootstrap, bundle::{Bundle, Arch}, cluster::Cluster, machine::*, machine::ssh::LoginKey, machine::files::Images, pki::Pki, report::*};
use std::{sync::Arc, path::Path};
#[tokio::main]
async fn main() {
    let minions: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let t0 = std::time::Instant::now();
    let cluster: Cluster = serde_yaml::from_str(&format!(r#"
apiVersion: kup.dev/v1alpha1
kind: Cluster
name: dev
provider: local
kubernetes: {{version: 1.37.1, serviceNodePortRange: 30000-32767, maxPods: 110}}
masters: {{count: 1}}
minions: {{count: {minions}}}
network: {{pods: 10.244.0.0/16, services: 10.0.0.0/16, dns: 10.0.0.10, domain: cluster.local}}
local: {{engine: auto, subnet: auto, image: null, bundle: mount, sshKey: null}}
"#)).unwrap();
    let b = Arc::new(Bundle::open(&kup::state::cache_dir().unwrap(), "1.37.1", Arch::Amd64).unwrap().unwrap());
    let (report, mut rx) = Report::channel();
    tokio::spawn(async move { while let Some(e) = rx.recv().await { match e { Event::Waiting{..}=>{}, e => eprintln!("{}", serde_json::to_string(&e).unwrap()) } } });
    let pki = Pki::open(Path::new("/tmp/dev/pki")).unwrap();
    let login = LoginKey::new(std::fs::read_to_string("/tmp/dev/id").unwrap());
    let host_key = std::fs::read_to_string("/tmp/dev/hostkey.pub").unwrap();
    let (tx, mrx) = tokio::sync::mpsc::unbounded_channel();
    let m = |name: String, role, last: u8| Machine { name, role, address: [172,29,99,last].into(), ssh_port: 22, user: "root".into(), host_key: host_key.clone(), bundle: BundleAccess::Mounted };
    tx.send(m("dev-master-1".into(), Role::Master, 11)).unwrap();
    for i in 1..=minions { tx.send(m(format!("dev-minion-{i}"), Role::Minion, 100 + i as u8)).unwrap(); }
    drop(tx);
    let images = Images::of(&b.manifest).unwrap();
    let cx = bootstrap::Context::new(cluster, images, b, pki, login, report);
    match bootstrap::run(&cx, bootstrap::STEPS, mrx).await { Ok(()) => eprintln!("OK {:?}", t0.elapsed()), Err(e) => eprintln!("error: {e}") }
    let admin = kup::pki::layout::admin(&cx.pki).unwrap();
    std::fs::write("/tmp/dev/admin.crt", admin.cert).unwrap(); std::fs::write("/tmp/dev/admin.key", admin.key).unwrap();
}
