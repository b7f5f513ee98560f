//! The add-ons on a cluster of one master and one minion: what is measured and what scales by it, volumes and how long they last, and
//! turning add-ons off and on again.
//!
//! Needs root. `KUP_TEST_ONLY=storage` runs only the checks whose name contains that.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod addons;
mod support;

use addons::{metrics, storage, switch};
use support::checks::Checks;

const CONFIG: &str = "
apiVersion: kup.dev/v1alpha1
kind: Cluster
masters: { count: 1 }
minions: { count: 1 }
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn add_ons() {
    let checks = Checks::on_new("kup-test-addons", CONFIG).await;

    // An autoscaler mostly waits; what has nothing to do with it is done meanwhile. The stop of all machines comes after both.
    let (others_are_done, done) = tokio::sync::oneshot::channel();
    futures::join!(
        async {
            futures::join!(
                checks.check(
                    "metrics::a_loaded_deployment_grows_and_shrinks",
                    None,
                    metrics::a_loaded_deployment_grows_and_shrinks
                ),
                async {
                    side_by_side!(&checks, None;
                        metrics::nodes_and_pods_are_measured,
                        metrics::certificates_are_verified_both_ways,
                        storage::a_claim_that_is_removed_leaves_nothing_on_the_disk,
                        storage::what_one_disk_can_not_give_is_refused,
                    );
                    checks.check("metrics::a_strangers_kubelet_is_refused", None, metrics::a_strangers_kubelet_is_refused).await;
                    checks
                        .check(
                            "switch::up_goes_by_the_config_and_changes_nothing_twice",
                            None,
                            switch::up_goes_by_the_config_and_changes_nothing_twice,
                        )
                        .await;
                }
            );
            // Nobody listens if that check has failed, or is not wanted.
            let _ = others_are_done.send(());
        },
        checks.check("storage::data_outlives_pods_and_the_cluster_s_stop", None, async |w| {
            storage::data_outlives_pods_and_the_cluster_s_stop(w, done).await
        })
    );
    checks
        .check(
            "switch::off_removes_exactly_that_and_on_brings_it_back",
            None,
            switch::off_removes_exactly_that_and_on_brings_it_back,
        )
        .await;
    if let Some(failures) = checks.failures() {
        panic!("{failures}");
    }
}
