//! The add-ons, DNS first among them: applied as soon as the API answers, so that their pods are scheduled the moment a node is Ready;
//! and what the config no longer has is removed.

use super::{After, Context, On, Run, Step};
use crate::addons::{self, apply};
use crate::error::Result;
use crate::report::Span;

pub(super) const STEP: Step = Step {
    name: "addons",
    title: "add-ons",
    on: On::Cluster,
    only: None,
    after: &[After::All("api")],
    run: Run::Cluster(|context, span| Box::pin(run(context, span))),
};

async fn run(context: &Context, span: &Span) -> Result<String> {
    let images = &context.images.all;
    let chosen = addons::chosen(&context.cluster, images);
    for addon in &chosen.lacking {
        context.report.warn(addon.lacking(images));
    }
    let mut objects = Vec::new();
    for addon in &chosen.present {
        objects.extend(addon.objects(&context.cluster, images, &context.pki)?);
    }
    span.waiting("the API to take their objects");
    let done = apply::reconcile(context.api().await?, &chosen, objects).await?;
    done.warnings.iter().for_each(|w| context.report.warn(w));
    if done.changed {
        context.mark_changed();
    }
    let removed = if done.removed.is_empty() { String::new() } else { format!(", {} removed", done.removed.len()) };
    Ok(format!("{} objects{removed}", done.objects))
}
