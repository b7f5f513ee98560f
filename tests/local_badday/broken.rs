//! Something on a machine is broken: kup names the cause and the machine, and once that is mended as it says, `up` finishes.

use kup::pki::authority::{Authority, Leaf};
use rcgen::{CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, KeyUsagePurpose};
use time::OffsetDateTime;

use crate::support::{Check, eventually};
use crate::{Day, ensure};

/// The kubelet's login.
const LOGIN: &str = "/var/lib/kubelet/pki/kubelet-client-current.pem";

/// Takes the minion out of the cluster, so that it has to join again.
async fn leave(day: &Day, script: &str) -> Check {
    day.on(&day.minion, &format!("systemctl stop kubelet; {script}")).await?;
    day.kubectl(&["delete", "node", &day.minion]).await.map(drop)
}

/// Writes over the minion's login.
async fn log_in_with(day: &Day, pem: &str) -> Check {
    leave(day, &format!("rm -f {LOGIN}; umask 077; cat > {LOGIN} <<'END'\n{pem}END\n")).await
}

pub async fn a_full_disk_is_named(day: &Day) -> Check {
    day.on(
        &day.minion,
        "mount -t tmpfs -o size=32k tmpfs /etc/kup && head -c 64k /dev/zero > /etc/kup/filler 2>/dev/null || true",
    )
    .await?;
    let error = day.fails(&[], &["disk", "is full", "/etc/kup", &day.minion, "No space left on device"]).await?;
    ensure!(error.contains(&format!("{} -- du", day.minion)), "{error}");
    day.on(&day.minion, "umount /etc/kup").await?;
    day.ready().await.map(drop)
}

/// The wait for the Node ended because it was known to be vain, not because its time was over.
fn in_vain(day: &Day, error: &str) -> Check {
    ensure!(error.contains(&format!("{} can't register as a Node", day.minion)), "it was waited to the end: {error}");
    Ok(())
}

/// The clock of the one that issued it was an hour ahead.
pub async fn a_certificate_of_the_future_is_named(day: &Day) -> Check {
    let pki = day.home.path().join(format!("state/kup/local/{}/pki", day.name));
    let (cert, key) =
        (std::fs::read_to_string(pki.join("cluster-ca.crt"))?, std::fs::read_to_string(pki.join("cluster-ca.key"))?);
    let issuer = Issuer::from_ca_cert_pem(&cert, KeyPair::from_pem(&key)?)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "system:nodes");
    name.push(DnType::CommonName, format!("system:node:{}", day.minion));
    params.distinguished_name = name;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = OffsetDateTime::now_utc() + time::Duration::hours(1);
    params.not_after = params.not_before + time::Duration::days(365);
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer)?;
    log_in_with(day, &format!("{}{}", cert.pem(), key.serialize_pem())).await?;

    let error = day.fails(&[], &["not yet valid", LOGIN, &day.minion, "the machine's clock says"]).await?;
    in_vain(day, &error)?;
    as_told(day, &error).await
}

pub async fn a_login_of_another_authority_is_named(day: &Day) -> Check {
    let stranger = Authority::generate("kubernetes")?;
    let login = Leaf::client(format!("system:node:{}", day.minion), Some("system:nodes"));
    let pair = stranger.issue(&login, time::Duration::days(1))?;
    log_in_with(day, &format!("{}{}", pair.cert, pair.key)).await?;
    let error = day.fails(&[], &["signed by an authority that this cluster does not trust", LOGIN, &day.minion]).await?;
    as_told(day, &error).await
}

/// Types what the error says.
async fn as_told(day: &Day, error: &str) -> Check {
    let told = format!("{} -- rm {LOGIN}", day.minion);
    ensure!(error.contains(&told), "`{told}` is not in: {error}");
    day.home.kup(&["ssh", &day.minion, "--", "rm", LOGIN]).await?.ok(&told)?;
    day.ready().await.map(drop)
}

pub async fn an_api_that_cannot_be_reached_is_named(day: &Day) -> Check {
    let wall = "nft add table inet wall; nft add chain inet wall out '{ type filter hook output priority -300; }'; nft add rule inet wall out tcp dport 6443 drop";
    day.on(&day.minion, wall).await?;
    leave(day, "true").await?;
    day.fails(&["--timeout", "12s"], &["can't reach the cluster's API", "timed out", &day.minion]).await?;
    day.on(&day.minion, "nft delete table inet wall").await?;
    day.ready().await.map(drop)
}

/// Puts another program in a unit's place.
fn instead(unit: &str, program: &str) -> String {
    let dir = format!("/etc/systemd/system/{unit}.service.d");
    format!(
        "mkdir -p {dir}; printf '%s\\n' '[Service]' 'NotifyAccess=all' 'ExecStart=' 'ExecStart={program}' > {dir}/broken.conf; systemctl daemon-reload"
    )
}

fn as_before(unit: &str) -> String {
    format!("systemctl stop {unit}; rm -r /etc/systemd/system/{unit}.service.d; systemctl daemon-reload")
}

pub async fn a_unit_that_keeps_crashing_is_named(day: &Day) -> Check {
    leave(day, &instead("kubelet", "/bin/sh -c \"echo out of paper; exit 3\"")).await?;
    let error = day.fails(&[], &["kubelet.service", "keeps failing", "out of paper", &day.minion]).await?;
    in_vain(day, &error)?;
    day.on(&day.minion, &as_before("kubelet")).await?;
    day.ready().await.map(drop)
}

pub async fn an_image_that_is_gone_is_named(day: &Day) -> Check {
    let gone = "image=$(/opt/kup/bundle/bin/ctr -n k8s.io images ls -q | grep coredns | head -n 1); /opt/kup/bundle/bin/ctr -n k8s.io images rm --sync $(/opt/kup/bundle/bin/ctr -n k8s.io images ls -q | grep -E \"coredns|^$image\") > /dev/null
                cp /etc/hosts /run/hosts-before; echo 127.0.0.1 registry.k8s.io >> /etc/hosts; echo $image";
    let image = day.on(&day.minion, gone).await?.trim().to_owned();
    ensure!(image.contains("coredns"), "{image}");
    // New ones go to both machines.
    let dns = ["delete", "pods", "-n", "kube-system", "-l", "k8s-app=kube-dns"];
    day.kubectl(&dns).await?;
    eventually("one replica to be missing", async || {
        let seen =
            day.kubectl(&["get", "deployment", "-n", "kube-system", "coredns", "-o", "jsonpath={.status.readyReplicas}"]).await?;
        Ok(if seen == "1" { Ok(()) } else { Err(seen) })
    })
    .await?;
    day.fails(&["--timeout", "20s"], &["does not have the image", &image, &day.minion, "kup image load"]).await?;
    day.on(&day.minion, "cat /run/hosts-before > /etc/hosts").await?;
    let archive = day.home.kup(&["bundle", "path", "coredns"]).await?.ok("kup bundle path coredns")?;
    day.home.kup(&["image", "load", "--name", &day.name, archive.trim()]).await?.ok("kup image load")?;
    // The kubelet would try again by itself, but later each time.
    day.kubectl(&dns).await?;
    day.ready().await.map(drop)
}

/// It runs and serves nothing: its own words are shown.
pub async fn a_master_that_never_gets_ready_says_why(day: &Day) -> Check {
    let program = "/bin/sh -c \"echo where are my glasses; systemd-notify --ready; exec sleep 1000\"";
    day.on(&day.master, &format!("systemctl stop kube-apiserver; {}", instead("kube-apiserver", program))).await?;
    day.fails(
        &["--timeout", "6s"],
        &["did not become ready", "/readyz", "where are my glasses", "kube-apiserver.service", &day.master],
    )
    .await?;
    day.on(&day.master, &as_before("kube-apiserver")).await?;
    day.ready().await.map(drop)
}

pub async fn a_taken_port_is_named(day: &Day) -> Check {
    let squat = "systemctl stop kube-apiserver; systemd-run -q --unit=squatter socat TCP-LISTEN:6443,fork,reuseaddr EXEC:cat";
    day.on(&day.master, squat).await?;
    day.fails(&[], &["port 6443", "`socat`", "is taken by", &day.master]).await?;
    day.on(&day.master, "systemctl stop squatter").await?;
    day.ready().await.map(drop)
}
