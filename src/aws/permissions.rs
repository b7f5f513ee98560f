//! Which IAM action each call of each kind needs, and the least policy that follows: the table that `kup iam policy` prints from.

use serde::Serialize;

/// One action that a kind of resource needs of the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Need {
    /// The IAM action: `ec2:CreateVpc`.
    pub action: &'static str,
    /// The call that needs it (`ec2:CreateVpc`), if it has another name or is implied by another (`iam:PassRole` by `ec2:RunInstances`).
    pub call: &'static str,
    /// What of the cluster the policy allows it on.
    pub scope: Scope,
    /// Whether kup can do without, and says so.
    pub optional: bool,
}

/// What an action is allowed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Anything: AWS knows no narrower scope for it (all of Describe).
    Any,
    /// What is being created with this cluster's tag.
    Creates,
    /// What carries this cluster's tag.
    Tagged,
    /// IAM entities below the cluster's path.
    IamPath,
    /// The cluster's bucket and what is in it.
    Bucket,
    /// Load balancers, target groups, listeners and Auto Scaling groups that carry this cluster's tag.
    Named,
}

/// An action of the same name as its call.
pub const fn need(action: &'static str, scope: Scope) -> Need {
    Need { action, call: action, scope, optional: false }
}

/// An action that a call of another name needs.
pub const fn implied(action: &'static str, call: &'static str, scope: Scope) -> Need {
    Need { action, call, scope, optional: false }
}

/// An action that kup can do without.
pub const fn optional(action: &'static str, scope: Scope) -> Need {
    Need { action, call: action, scope, optional: true }
}
