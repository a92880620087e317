//! How an image was made, step by step, the last one first. The sizes are those of the layers as they lie, so their sum is
//! what the layers of the image take.

use serde_json::{Value, json};

use crate::container::view::Width;
use crate::container::{Moment, size};
use crate::image::{Image, facts};
use crate::layer::LayerSource;

use super::view::{ago, time};

/// Characters of the commands in the table, as docker and podman have it.
const COMMAND_CHARS_MAX: usize = 45;
const MISSING: &str = "<missing>";
const SHORT_DIGITS: usize = 12;
/// More steps nobody has: a step without a layer takes 50 bytes in a config.
const STEPS_MAX: usize = 10_000;

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The image's id, at the last step: the others have none any more.
    pub id: Option<String>,
    /// When it was made.
    pub created: Option<Moment>,
    /// By what.
    pub created_by: String,
    /// Bytes of its layer as it lies there; 0 when it made none.
    pub size: u64,
    /// What was said about it.
    pub comment: String,
    /// Whether it made no layer.
    pub is_empty: bool,
}

/// How much is shown, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// How much of ids and commands.
    pub width: Width,
    /// Sizes and times in words.
    pub human: bool,
}

/// A step as a config has it (image-spec config.md).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Written {
    created: Option<String>,
    created_by: Option<String>,
    comment: Option<String>,
    empty_layer: Option<bool>,
}

/// The steps of an image, the last first. When its history speaks of another number of layers than it has, it is not
/// believed: then there is a step for each layer, of which nothing but the size is known.
#[must_use]
pub fn steps(image: &Image) -> Vec<Step> {
    let sizes = sizes(image);
    let history = image.config.other.get("history").cloned().unwrap_or(Value::Null);
    let written: Vec<Written> = serde_json::from_value(history).unwrap_or_default();
    let layers = written.iter().filter(|step| step.empty_layer != Some(true)).count();
    let mut steps: Vec<Step> = if layers == sizes.len() && written.len() <= STEPS_MAX {
        let mut sizes = sizes.into_iter();
        written.into_iter().map(|step| known(step, &mut sizes)).collect()
    } else {
        let unknown = |size| Step {
            id: None,
            created: None,
            created_by: String::new(),
            size,
            comment: String::new(),
            is_empty: false,
        };
        sizes.into_iter().map(unknown).collect()
    };
    steps.reverse();
    if let Some(last) = steps.first_mut() {
        last.id = Some(image.config_digest.hex());
    }
    steps
}

fn known(step: Written, sizes: &mut impl Iterator<Item = u64>) -> Step {
    let is_empty = step.empty_layer == Some(true);
    Step {
        id: None,
        created: step.created.and_then(|text| facts::moment(&text)).map(Moment::from_seconds),
        created_by: step.created_by.unwrap_or_default(),
        size: if is_empty { 0 } else { sizes.next().unwrap_or_default() },
        comment: step.comment.unwrap_or_default(),
        is_empty,
    }
}

/// Bytes of the layers, base first: what the manifest says, else what they have.
fn sizes(image: &Image) -> Vec<u64> {
    if !image.documents.layers.is_empty() {
        return image.documents.layers.iter().map(|layer| layer.size).collect();
    }
    let size = |source: Option<&LayerSource>| match source {
        Some(LayerSource::Tar(tar)) => tar.blob.len(),
        Some(LayerSource::Directory(_)) | None => 0,
    };
    image.layers_by_place().into_iter().map(size).collect()
}

impl Step {
    /// The column IMAGE.
    #[must_use]
    pub fn id(&self, width: Width) -> String {
        match (&self.id, width) {
            (None, _) => MISSING.to_owned(),
            (Some(id), Width::Short) => id.chars().take(SHORT_DIGITS).collect(),
            (Some(id), Width::Full) => format!("sha256:{id}"),
        }
    }

    fn created_by(&self, width: Width) -> String {
        let text: String = self.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        if width == Width::Full || text.chars().count() <= COMMAND_CHARS_MAX {
            return text;
        }
        text.chars().take(COMMAND_CHARS_MAX - 1).chain(['\u{2026}']).collect()
    }

    fn created(&self, now: Moment, shown: Shown) -> String {
        match self.created {
            Some(moment) if !shown.human => {
                moment.to_string().split('.').next().map(|text| format!("{text}Z"))
            }
            other => Some(ago(other, now)),
        }
        .unwrap_or_default()
    }

    fn size(&self, shown: Shown) -> String {
        if shown.human { size::in_words(self.size) } else { self.size.to_string() }
    }
}

/// The lines of the table, headings first.
#[must_use]
pub fn table(steps: &[Step], now: Moment, shown: Shown) -> Vec<Vec<String>> {
    let headings = ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"].map(str::to_owned).to_vec();
    let line = |step: &Step| {
        vec![
            step.id(shown.width),
            step.created(now, shown),
            step.created_by(shown.width),
            step.size(shown),
            step.comment.clone(),
        ]
    };
    std::iter::once(headings).chain(steps.iter().map(line)).collect()
}

/// What a template is filled in with for one step.
#[must_use]
pub fn words(step: &Step, now: Moment, shown: Shown) -> Value {
    json!({
        "Comment": step.comment,
        "Created": step.created(now, shown),
        "CreatedAt": step.created.map(time).unwrap_or_default(),
        "CreatedBy": step.created_by(shown.width),
        "CreatedSince": ago(step.created, now),
        "ID": step.id(shown.width),
        "Size": step.size(shown),
    })
}

/// The headings of columns, by what fills them.
#[must_use]
pub fn headings() -> Value {
    json!({
        "Comment": "COMMENT",
        "Created": "CREATED",
        "CreatedAt": "CREATED AT",
        "CreatedBy": "CREATED BY",
        "CreatedSince": "CREATED",
        "ID": "IMAGE",
        "Size": "SIZE",
    })
}

/// podman's array.
///
/// # Errors
/// None in practice: everything in it can be written as JSON.
pub fn json_list(steps: &[Step]) -> serde_json::Result<String> {
    let object = |step: &Step| {
        json!({
            "id": step.id.clone().unwrap_or_else(|| MISSING.to_owned()),
            "created": step.created.map(|moment| moment.to_string()),
            "CreatedBy": step.created_by,
            "size": step.size,
            "comment": step.comment,
            "emptyLayer": step.is_empty,
        })
    };
    serde_json::to_string_pretty(&steps.iter().map(object).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::Documents;
    use crate::model::Digest;
    use crate::store::Descriptor;

    fn image(history: &str) -> Image {
        let layer = |size| Descriptor::new("", Digest::from_bytes([1; 32]), size);
        Image {
            name: "x".to_owned(),
            source: "x".to_owned(),
            config: serde_json::from_str(&format!(r#"{{"rootfs":{{}},"history":{history}}}"#)).unwrap(),
            config_digest: Digest::from_bytes([2; 32]),
            layers: Vec::new(),
            documents: Documents { layers: vec![layer(1500), layer(7)], ..Documents::default() },
        }
    }

    #[test]
    fn sizes_go_to_the_steps_that_made_layers() {
        let long = "RUN ".to_owned() + &"x".repeat(100);
        let image = image(&format!(
            r#"[{{"created":"1970-01-01T00:00:01Z","created_by":"ADD"}},{{"created_by":"ENV","empty_layer":true}},
                {{"created_by":"{long}","comment":"c"}}]"#
        ));
        let steps = steps(&image);
        let sizes: Vec<(u64, bool)> = steps.iter().map(|step| (step.size, step.is_empty)).collect();
        assert_eq!(sizes, [(7, false), (0, true), (1500, false)]);
        let shown = Shown { width: Width::Short, human: true };
        let lines = table(&steps, Moment::from_seconds(61), shown);
        assert_eq!(lines[1][..2], ["020202020202".to_owned(), "N/A".to_owned()]);
        assert_eq!((lines[1][2].chars().count(), lines[1][4].as_str()), (COMMAND_CHARS_MAX, "c"));
        assert_eq!(lines[3], ["<missing>", "About a minute ago", "ADD", "1.5kB", ""]);
        let exact = Shown { width: Width::Full, human: false };
        assert_eq!(
            table(&steps, Moment::from_seconds(61), exact)[3][1..4],
            ["1970-01-01T00:00:01Z", "ADD", "1500"]
        );
        let list: Value = serde_json::from_str(&json_list(&steps).unwrap()).unwrap();
        assert_eq!((&list[1]["emptyLayer"], &list[2]["size"]), (&json!(true), &json!(1500)));
    }

    #[test]
    fn a_history_of_something_else_is_not_believed() {
        for history in ["null", "7", r#"[{"created_by":"a"}]"#, r#"[{"created_by":7},{}]"#] {
            let steps = steps(&image(history));
            assert_eq!(steps.iter().map(|step| step.size).collect::<Vec<_>>(), [7, 1500], "{history}");
            assert!(steps.iter().all(|step| step.created_by.is_empty()));
        }
        assert_eq!(steps(&image("[{},{}]")).len(), 2);
    }
}
