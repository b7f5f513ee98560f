//! The network that things are put into, whether it is the cluster's own or one that was there before.

use super::given::{GivenSubnet, GivenVpc};
use super::subnet::Subnet;
use super::vpc::Vpc;
use crate::aws::Aws;
use crate::error::Result;
use crate::graph::{Address, Cx, Found as _, Ref};

/// A VPC of the cluster's own, or a given one.
#[derive(Debug, Clone)]
pub enum VpcRef {
    /// The cluster's own.
    Own(Ref<Vpc>),
    /// One that was there before.
    Given(Ref<GivenVpc>),
}

impl VpcRef {
    /// Where it points, for [`crate::graph::Resource::needs`].
    pub fn address(&self) -> Address {
        match self {
            VpcRef::Own(to) => to.address(),
            VpcRef::Given(to) => to.address(),
        }
    }

    /// Its id.
    ///
    /// # Errors
    /// As [`Cx::get`].
    pub fn id(&self, cx: &Cx<'_, Aws>) -> Result<String> {
        match self {
            VpcRef::Own(to) => Ok(cx.get(to)?.id().to_owned()),
            VpcRef::Given(to) => Ok(cx.get(to)?.id().to_owned()),
        }
    }

    /// Its id while comparing: none if it is yet to be made.
    pub fn look(&self, cx: &Cx<'_, Aws>) -> Option<String> {
        self.id(cx).ok()
    }
}

impl From<Ref<Vpc>> for VpcRef {
    fn from(to: Ref<Vpc>) -> Self {
        VpcRef::Own(to)
    }
}

impl From<Ref<GivenVpc>> for VpcRef {
    fn from(to: Ref<GivenVpc>) -> Self {
        VpcRef::Given(to)
    }
}

/// A public subnet of the cluster's own, or a given one.
#[derive(Debug, Clone)]
pub enum SubnetRef {
    /// The cluster's own.
    Own(Ref<Subnet>),
    /// One that was there before.
    Given(Ref<GivenSubnet>),
}

impl SubnetRef {
    /// Where it points, for [`crate::graph::Resource::needs`].
    pub fn address(&self) -> Address {
        match self {
            SubnetRef::Own(to) => to.address(),
            SubnetRef::Given(to) => to.address(),
        }
    }

    /// Its id.
    ///
    /// # Errors
    /// As [`Cx::get`].
    pub fn id(&self, cx: &Cx<'_, Aws>) -> Result<String> {
        match self {
            SubnetRef::Own(to) => Ok(cx.get(to)?.id().to_owned()),
            SubnetRef::Given(to) => Ok(cx.get(to)?.id().to_owned()),
        }
    }

    /// Its id while comparing: none if it is yet to be made.
    pub fn look(&self, cx: &Cx<'_, Aws>) -> Option<String> {
        self.id(cx).ok()
    }

    /// Its zone.
    ///
    /// # Errors
    /// As [`Cx::get`].
    pub fn zone(&self, cx: &Cx<'_, Aws>) -> Result<String> {
        match self {
            SubnetRef::Own(to) => Ok(cx.get(to)?.zone.clone()),
            SubnetRef::Given(to) => Ok(cx.get(to)?.zone.clone()),
        }
    }
}

impl From<Ref<Subnet>> for SubnetRef {
    fn from(to: Ref<Subnet>) -> Self {
        SubnetRef::Own(to)
    }
}

impl From<Ref<GivenSubnet>> for SubnetRef {
    fn from(to: Ref<GivenSubnet>) -> Self {
        SubnetRef::Given(to)
    }
}
