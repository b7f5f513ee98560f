//! Processes that are asked to end before they are made to: podman then finishes or undoes what it is in the middle of, where a kill
//! would leave half a container that no list shows; mmdebstrap unmounts and removes what it built.

use std::io;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::process::{Child, Command};

/// Time to end after having been asked to.
const GRACE: Duration = Duration::from_secs(10);

/// Starts a process in a group of its own: Ctrl-C is for kup to handle, not for each child.
pub(in super::super) fn spawn(command: &mut Command) -> io::Result<Child> {
    command.process_group(0).spawn()
}

/// Waits for `work`, which ends with the process `pid`, until the deadline; then the process is asked to end, and made to if it
/// doesn't, and there is no outcome. If this future is dropped, the process is asked to end too.
pub(in super::super) async fn end<T>(
    pid: Option<u32>,
    deadline: Duration,
    work: impl Future<Output = io::Result<T>>,
) -> Option<io::Result<T>> {
    let mut ending = Ending { pid: pid.and_then(|p| Pid::from_raw(p.try_into().ok()?)) };
    tokio::pin!(work);
    if let Ok(outcome) = tokio::time::timeout(deadline, &mut work).await {
        ending.pid = None;
        return Some(outcome);
    }
    // It may end in the meantime: then there is nobody to tell.
    if let Some(pid) = ending.pid {
        let _ = kill_process(pid, Signal::TERM);
        if tokio::time::timeout(GRACE, &mut work).await.is_err() {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = tokio::time::timeout(GRACE, &mut work).await;
        }
    }
    ending.pid = None;
    None
}

/// Asks a process to end when dropped.
struct Ending {
    pid: Option<Pid>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}
