//! One wanted thing: what it is called, what it needs, how it differs from what was found, and how it is made, changed and removed.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, Result};

/// How long one listing may take, with all its pages and all tries of their calls. The largest takes seconds; one whose pages never end,
/// or that is throttled for longer than that, is told rather than waited for.
const LISTING: Duration = Duration::from_secs(300);

/// A future in a box, as the erased forms return them.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Which thing: its kind, and its name among that kind. The same before and after it is made.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Address {
    /// The kind's name.
    pub kind: &'static str,
    /// The thing's name.
    pub name: String,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// A typed reference to another wanted thing.
pub struct Ref<R> {
    name: String,
    kind: PhantomData<fn() -> R>,
}

impl<R: Resource> Ref<R> {
    /// To the thing of that name.
    pub fn to(name: impl Into<String>) -> Ref<R> {
        Ref { name: name.into(), kind: PhantomData }
    }

    /// Where it points.
    pub fn address(&self) -> Address {
        Address { kind: R::KIND, name: self.name.clone() }
    }
}

impl<R> Clone for Ref<R> {
    fn clone(&self) -> Self {
        Ref { name: self.name.clone(), kind: PhantomData }
    }
}

impl<R> fmt::Debug for Ref<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ref({})", self.name)
    }
}

/// One way in which what was found is not as wanted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The field, in the words of the config where it has one.
    pub field: String,
    /// As it is.
    pub from: String,
    /// As it is wanted.
    pub to: String,
    /// What it takes.
    pub effect: Effect,
    /// How many machines end by it, with all that is on them.
    #[serde(skip_serializing_if = "is_none")]
    pub ends: u32,
}

/// Whether no machine ends.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde has it so")]
fn is_none(ends: &u32) -> bool {
    *ends == 0
}

impl Change {
    /// A change that the thing lives through.
    pub fn in_place(field: impl Into<String>, from: impl fmt::Display, to: impl fmt::Display) -> Change {
        Change { field: field.into(), from: from.to_string(), to: to.to_string(), effect: Effect::InPlace, ends: 0 }
    }

    /// The same, by which so many machines end.
    #[must_use]
    pub fn ending(self, machines: u32) -> Change {
        Change { ends: machines, ..self }
    }

    /// A change for which it must be removed and made again.
    pub fn replace(field: impl Into<String>, from: impl fmt::Display, to: impl fmt::Display) -> Change {
        Change { effect: Effect::Replace, ..Change::in_place(field, from, to) }
    }

    /// A change that can't be made to a cluster that stands.
    pub fn refuse(field: impl Into<String>, from: impl fmt::Display, to: impl fmt::Display) -> Change {
        Change { effect: Effect::Refuse, ..Change::in_place(field, from, to) }
    }

    /// `Some` of the first constructor's outcome if both differ.
    pub fn if_differs<T: PartialEq + fmt::Display>(
        field: &str,
        from: &T,
        to: &T,
        change: fn(String, String, String) -> Change,
    ) -> Option<Change> {
        (from != to).then(|| change(field.to_owned(), from.to_string(), to.to_string()))
    }
}

/// What a change takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// An update.
    InPlace,
    /// Removal and making it again; only if the user asks for it.
    Replace,
    /// It can't be done.
    Refuse,
}

/// A thing as it was found.
pub trait Found: Send + Sync + 'static {
    /// Its name among its kind: the one its wanted counterpart has.
    fn name(&self) -> &str;
    /// By which the cloud knows it (`vpc-0123`, an ARN).
    fn id(&self) -> &str;
}

/// One kind of thing, and by its values the wanted ones.
///
/// All of one kind (list, diff, create, update, delete) stands in one file.
pub trait Resource: Send + Sync + 'static {
    /// Where such things are made.
    type Cloud: Send + Sync + 'static;
    /// What listing says of one.
    type Found: Found;
    /// The kind's name, as people read it: `security group`.
    const KIND: &'static str;

    /// Its name among its kind.
    fn name(&self) -> &str;

    /// What has to be there before it is made. [`Cx::get`] gives these, and no others.
    fn needs(&self) -> Vec<Address> {
        Vec::new()
    }

    /// What it will be like, in a few words, for the plan.
    fn detail(&self) -> String {
        String::new()
    }

    /// How what was found differs from this. Needs that were not found are not in `cx` yet.
    fn diff(&self, found: &Self::Found, cx: &Cx<'_, Self::Cloud>) -> Vec<Change>;

    /// Makes it. Called again after a kill it must find what the first call made, or make no second one.
    fn create(&self, cx: &Cx<'_, Self::Cloud>) -> impl Future<Output = Result<Self::Found>> + Send;

    /// Makes those changes, all [`Effect::InPlace`], and says what it is like now.
    fn update(
        &self,
        found: &Self::Found,
        changes: &[Change],
        cx: &Cx<'_, Self::Cloud>,
    ) -> impl Future<Output = Result<Self::Found>> + Send;

    /// All of this kind that belong to the cluster, with no config at hand.
    fn list(cloud: &Self::Cloud) -> impl Future<Output = Result<Vec<Self::Found>>> + Send;

    /// Removes one, and returns when it is gone. One that is gone already is no error.
    fn delete(cloud: &Self::Cloud, found: &Self::Found) -> impl Future<Output = Result<()>> + Send;
}

/// What is known of things by their addresses: those that were found, and those made since.
#[derive(Default)]
pub struct Known(Mutex<BTreeMap<Address, Arc<dyn Any + Send + Sync>>>);

impl Known {
    /// Takes one in.
    pub fn insert(&self, address: Address, value: Arc<dyn Any + Send + Sync>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(address, value);
    }

    /// One that is known.
    pub fn get<R: Resource>(&self, to: &Ref<R>) -> Option<Arc<R::Found>> {
        let any = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&to.address()).cloned()?;
        any.downcast().ok()
    }
}

/// What a thing sees of the world while it is compared, made or changed.
pub struct Cx<'a, C> {
    /// Where things are made.
    pub cloud: &'a C,
    me: Address,
    needs: Vec<Address>,
    known: &'a Known,
    mistake: Mutex<Option<Error>>,
}

impl<'a, C> Cx<'a, C> {
    pub(super) fn new(cloud: &'a C, node: &dyn Node<C>, known: &'a Known) -> Cx<'a, C> {
        Cx { cloud, me: node.address(), needs: node.needs(), known, mistake: Mutex::default() }
    }

    /// A thing that this one declared to need, once it is there.
    ///
    /// # Errors
    /// An undeclared need is a mistake in kup, and said so; while planning, a need that is not made yet is an error to be passed over.
    pub fn get<R: Resource<Cloud = C>>(&self, to: &Ref<R>) -> Result<Arc<R::Found>> {
        let at = to.address();
        if !self.needs.contains(&at) {
            let mistake = Error::new(format!("{} uses {at} without having declared it", self.me)).why("this is a mistake in kup");
            *self.mistake.lock().unwrap_or_else(PoisonError::into_inner) = Some(mistake.clone());
            return Err(mistake);
        }
        self.known.get(to).ok_or_else(|| Error::new(format!("{at} is not there, which {} needs", self.me)))
    }

    /// As [`Cx::get`] while comparing: none if it is yet to be made. An undeclared need ends the planning.
    pub fn look<R: Resource<Cloud = C>>(&self, to: &Ref<R>) -> Option<Arc<R::Found>> {
        self.get(to).ok()
    }

    /// An undeclared need that was asked for.
    pub(super) fn mistake(&self) -> Option<Error> {
        self.mistake.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The erased form of a [`Resource`]: what a [`Graph`] holds.
pub trait Node<C>: Send + Sync {
    /// Which thing.
    fn address(&self) -> Address;
    /// What has to be there before.
    fn needs(&self) -> Vec<Address>;
    /// What it will be like.
    fn detail(&self) -> String;
    /// How what was found differs.
    fn diff(&self, found: &Entry, cx: &Cx<'_, C>) -> Result<Vec<Change>>;
    /// Makes it.
    fn create<'a>(&'a self, cx: &'a Cx<'a, C>) -> Boxed<'a, Result<Entry>>;
    /// Changes it.
    fn update<'a>(&'a self, found: &'a Entry, changes: &'a [Change], cx: &'a Cx<'a, C>) -> Boxed<'a, Result<Entry>>;
}

impl<R: Resource> Node<R::Cloud> for R {
    fn address(&self) -> Address {
        Address { kind: R::KIND, name: self.name().to_owned() }
    }

    fn needs(&self) -> Vec<Address> {
        Resource::needs(self)
    }

    fn detail(&self) -> String {
        Resource::detail(self)
    }

    fn diff(&self, found: &Entry, cx: &Cx<'_, R::Cloud>) -> Result<Vec<Change>> {
        Ok(Resource::diff(self, found.value::<R>()?, cx))
    }

    fn create<'a>(&'a self, cx: &'a Cx<'a, R::Cloud>) -> Boxed<'a, Result<Entry>> {
        Box::pin(async move { Ok(Entry::of::<R>(Resource::create(self, cx).await?)) })
    }

    fn update<'a>(&'a self, found: &'a Entry, changes: &'a [Change], cx: &'a Cx<'a, R::Cloud>) -> Boxed<'a, Result<Entry>> {
        Box::pin(async move { Ok(Entry::of::<R>(Resource::update(self, found.value::<R>()?, changes, cx).await?)) })
    }
}

/// A thing that was found, or has been made.
#[derive(Clone)]
pub struct Entry {
    /// Which thing.
    pub address: Address,
    /// By which the cloud knows it.
    pub id: String,
    value: Arc<dyn Any + Send + Sync>,
}

impl Entry {
    /// One of the kind `R`.
    pub fn of<R: Resource>(found: R::Found) -> Entry {
        let address = Address { kind: R::KIND, name: found.name().to_owned() };
        Entry { address, id: found.id().to_owned(), value: Arc::new(found) }
    }

    /// It, as its kind knows it.
    pub fn value<R: Resource>(&self) -> Result<&R::Found> {
        self.value.downcast_ref().ok_or_else(|| {
            Error::new(format!("{} is not a {}", self.address, R::KIND)).why("this is a mistake in kup: two kinds share a name")
        })
    }

    pub(super) fn any(&self) -> Arc<dyn Any + Send + Sync> {
        self.value.clone()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.id)
    }
}

/// All that is wanted.
pub struct Graph<C> {
    pub(super) nodes: Vec<Box<dyn Node<C>>>,
}

impl<C> Default for Graph<C> {
    fn default() -> Self {
        Graph { nodes: Vec::new() }
    }
}

impl<C: Send + Sync + 'static> Graph<C> {
    /// Nothing yet.
    pub fn new() -> Graph<C> {
        Graph::default()
    }

    /// Adds a wanted thing and gives the reference by which others reach it.
    pub fn add<R: Resource<Cloud = C>>(&mut self, resource: R) -> Ref<R> {
        let to = Ref::to(resource.name());
        self.nodes.push(Box::new(resource));
        to
    }

    /// The wanted things.
    pub fn nodes(&self) -> &[Box<dyn Node<C>>] {
        &self.nodes
    }

    pub(super) fn into_nodes(self) -> Vec<Box<dyn Node<C>>> {
        self.nodes
    }
}

/// One row of the table of kinds: what `down` needs of a kind, with no config at hand.
pub struct Kind<C> {
    /// The kind's name.
    pub name: &'static str,
    /// The kinds that things of this one may need. Removal goes the other way: this kind's things go before theirs.
    pub needs: &'static [&'static str],
    list: for<'a> fn(&'a C) -> Boxed<'a, Result<Vec<Entry>>>,
    delete: for<'a> fn(&'a C, &'a Entry) -> Boxed<'a, Result<()>>,
}

impl<C> Clone for Kind<C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Kind<C> {}

/// The row of the kind `R`.
pub const fn kind<R: Resource>(needs: &'static [&'static str]) -> Kind<R::Cloud> {
    Kind {
        name: R::KIND,
        needs,
        list: |cloud| Box::pin(async move { Ok(R::list(cloud).await?.into_iter().map(Entry::of::<R>).collect()) }),
        delete: |cloud, entry| Box::pin(async move { R::delete(cloud, entry.value::<R>()?).await }),
    }
}

impl<C> Kind<C> {
    /// All of this kind that belong to the cluster.
    ///
    /// # Errors
    /// Those of the question, and that it does not come to its end.
    pub async fn list(&self, cloud: &C) -> Result<Vec<Entry>> {
        listed(&format!("the cluster's things of the kind {:?}", self.name), (self.list)(cloud)).await
    }

    /// Removes one.
    pub async fn delete(&self, cloud: &C, entry: &Entry) -> Result<()> {
        (self.delete)(cloud, entry).await
    }
}

/// The answer to a listing of `what`, which follows "were not enough to list".
///
/// # Errors
/// Those of the listing itself, and that it took too long.
pub async fn listed<T>(what: &str, list: impl Future<Output = Result<T>>) -> Result<T> {
    listed_within(LISTING, what, list).await
}

async fn listed_within<T>(limit: Duration, what: &str, list: impl Future<Output = Result<T>>) -> Result<T> {
    match tokio::time::timeout(limit, list).await {
        Ok(answer) => answer,
        Err(_) => Err(Error::new(format!("{} s were not enough to list {what}", limit.as_secs()))
            .why("its answers are slow, or go on without an end; without the whole list nothing is changed")
            .hint("try again; if it stays so, check the network, and the endpoint if you set one")),
    }
}

/// Lists all kinds at once.
pub async fn list_all<C>(kinds: &[Kind<C>], cloud: &C) -> Result<Vec<Entry>> {
    let lists = futures::future::try_join_all(kinds.iter().map(|kind| kind.list(cloud))).await?;
    Ok(lists.into_iter().flatten().collect())
}

/// For tests of kinds.
#[cfg(test)]
pub(crate) mod testing {
    use super::{Change, Cx, Known, Resource};

    /// How what was found differs, where nothing of what the wanted thing needs was found.
    pub(crate) fn diff<R: Resource>(wanted: &R, found: &R::Found, cloud: &R::Cloud) -> Vec<Change> {
        wanted.diff(found, &Cx::new(cloud, wanted, &Known::default()))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

    use super::*;

    #[tokio::test]
    async fn a_listing_without_an_end_is_told() {
        let pages = async {
            loop {
                tokio::task::yield_now().await;
            }
        };
        let error = listed_within::<()>(Duration::from_millis(20), "VPCs", pages).await.unwrap_err();
        assert_eq!(error.what, "0 s were not enough to list VPCs");
        assert_eq!(listed("VPCs", async { Ok(1) }).await.unwrap(), 1);
    }
}
