//! The story that this project's sources, Kubernetes' tutorials, tell: on one master and two minions, clause by clause; and beside it
//! the settings of the nodes, read from the nodes.
//!
//! `KUP_TEST_ONLY=services` runs only the checks whose name contains that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod local;
mod support;

use local::nodes::{api_server, dns, etcd, host, kubelet, secrets};
use local::{config, failure, kubectl, limits, pods, probes, rollouts, scheduling, services};
use support::checks::Checks;

const CONFIG: &str = "
apiVersion: kup.dev/v1alpha1
kind: Cluster
kubernetes: { serviceNodePortRange: 31000-31063, maxPods: 100 }
masters: { count: 1 }
minions: { count: 2 }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_story() {
    let checks = Checks::on_new("kup-test-story", CONFIG).await;

    // What needs all nodes; the slow first.
    side_by_side!(&checks, None;
        rollouts::deployment_rolls_and_rolls_back_with_no_request_lost,
        rollouts::controller_rolls_with_no_request_lost,
        services::balance_over_two_controllers,
        pods::every_pod_has_its_own_address,
        services::have_dns_names,
        services::external_name,
        services::without_selector,
        services::reach_a_pod_from_its_own_node,
        services::answer_on_every_nodes_port,
        pods::minions_share_the_work,
        scheduling::node_selector_finds_its_node,
        config::namespaces_keep_apart,
        dns::dns_is_spread_and_protected,
        api_server::audit_log_tells_who_did_what,
        api_server::nodes_are_restricted_to_themselves,
        api_server::control_plane_runs_as_configured,
        api_server::administrator_has_a_group_of_its_own,
        api_server::strangers_see_health_only,
        api_server::tokens_are_signed_with_rsa,
        etcd::etcd_asks_for_its_own_certificates,
        etcd::secrets_are_encrypted_in_etcd,
        host::kernel_is_set_for_pods,
        host::journal_and_network_daemon_are_kept_in_check,
        host::units_run_and_come_back,
        host::only_what_others_need_listens,
        host::machines_see_only_their_own_pods,
        kubelet::kubelets_run_as_configured,
        kubelet::reservations_hold,
        kubelet::pods_are_confined_by_default,
        kubelet::kubelets_refuse_strangers,
        kubelet::kube_proxy_runs_as_configured,
        secrets::secrets_are_roots_alone,
        secrets::secrets_are_in_no_argument_and_no_log,
    );

    // One minion dies; what needs only one runs beside it on the other.
    let minions: Vec<_> = checks.cluster.minions().cloned().collect();
    let (left, victim) = (Some(minions[0].name.as_str()), &minions[1]);
    futures::join!(
        checks.check("failure::pods_of_a_killed_machine_run_elsewhere", None, async |w| {
            failure::pods_of_a_killed_machine_run_elsewhere(w, victim).await
        }),
        async {
            side_by_side!(&checks, left;
                probes::liveness_restarts,
                probes::readiness_gates_requests,
                limits::too_much_memory_is_killed,
                limits::too_much_cpu_is_throttled,
                kubectl::exec_carries_all_streams,
                kubectl::logs_follow_and_look_back,
                kubectl::port_forward,
                kubectl::cp_there_and_back,
                rollouts::scale_1_4_2,
                pods::controllers_with_labels,
                pods::killed_pod_is_replaced,
                pods::two_containers_share_localhost_and_a_volume,
                services::are_in_the_environment,
                config::config_map_secret_and_empty_dir,
                config::a_service_account_may_what_its_role_says,
                scheduling::host_ports_clash,
                scheduling::unsatisfiable_request_says_why,
            );
        }
    );
    if let Some(failures) = checks.failures() {
        panic!("{failures}");
    }
}
