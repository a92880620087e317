//! `layerfs push --with-index`

use anyhow::Context as _;
use clap::Args;

use super::progress::{Indexing, Told};
use crate::image::Image;
use crate::image::attached::Attachments;
use crate::image::push::{Parcel, Pusher};
use crate::store::Store;

/// What is pushed besides the image.
#[derive(Clone, Copy, Debug, Args)]
pub struct IndexArgs {
    /// Attach the indexes of the layers to the image, so that others can mount it without reading all of it first. Prints `index
    /// DIGEST`: give that digest to --trust-index of `mount --lazy` and `run --lazy`
    #[arg(long)]
    pub with_index: bool,
}

impl IndexArgs {
    /// What is to be attached to images, if anything: made before anything is sent.
    pub(super) fn attachments<'a, 'i>(
        self,
        images: impl Iterator<Item = (&'i Image, &'i Parcel)>,
        store: &'a Store,
        told: Told,
    ) -> anyhow::Result<Attachments<'a>> {
        let mut attachments = Attachments::new(store);
        if self.with_index {
            let progress = Indexing::quiet_or_any(told);
            for (image, parcel) in images {
                attachments.add(image, parcel, &progress)?;
            }
        }
        Ok(attachments)
    }
}

/// Attaches what there is to what was pushed, and says which digests it has.
pub(super) fn attach(
    attachments: &Attachments<'_>,
    pusher: &mut Pusher<'_>,
    parcel: &Parcel,
    told: Told,
) -> anyhow::Result<()> {
    let pushed = attachments.push(pusher, parcel);
    for digest in pushed.context("the image is pushed, its indexes are not")? {
        if told == Told::Progress {
            super::print(&format!("index {digest}\n"))?;
        }
    }
    Ok(())
}
