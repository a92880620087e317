//! Every rule by which tars become trees, one small image each: `tests/support/corpus.py` writes them and judges.

use std::fs;
use std::process::Command;

use crate::support::*;

#[test]
fn every_rule_of_layers() {
    needs_mount!();
    if !is_root() {
        skip!("only root can unpack what is compared");
    }
    let place = Place::new();
    let corpus =
        |arguments: &[&str]| finish(Command::new("python3").arg(support_file("corpus.py")).args(arguments));
    let cases = place.path("cases");
    let written = corpus(&["write", cases.to_str().unwrap()]);
    let only = std::env::var("LAYERFS_TEST_CASE").unwrap_or_default();
    let mut wrong = Vec::new();
    let names: Vec<&str> = written.ok().lines().filter(|name| name.contains(&only)).collect();
    assert!(!names.is_empty());
    for name in names {
        let problem = match name.strip_prefix('!') {
            Some(name) => accepted(&place, name, &corpus(&["refusal", name])),
            None => {
                let image = cases.join(name);
                let mounted = place.mount(&["--rm", "--read-only", "--owner", "image"], &image);
                let scratch = place.path("scratch");
                fs::create_dir(&scratch).unwrap();
                let [mnt, image, tmp] =
                    [place.mnt(), image, scratch.clone()].map(|path| path.display().to_string());
                let judged = corpus(&["judge", name, &image, &mnt, &tmp]);
                mounted.unmount();
                shell("chmod -R u+rwX \"$1\" && rm -rf \"$1\"", &[&scratch]).ok();
                (judged.code != 0).then(|| format!("{}{}", judged.out, judged.err))
            }
        };
        wrong.extend(problem.map(|problem| format!("{name}: {problem}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is wrong with how a layer was refused, if it was.
fn accepted(place: &Place, name: &str, words: &Done) -> Option<String> {
    let image = place.path("cases").join(name);
    let [image, mnt] = [image, place.mnt()].map(|path| path.display().to_string());
    let done = place.layerfs(&["mount", "--rm", "--read-only", &image, &mnt]);
    if done.code == 0 {
        force_unmount(&place.mnt());
        return Some("was not refused".to_owned());
    }
    let text = done.err.to_lowercase();
    let is_clear = words.ok().lines().any(|word| text.contains(&word.to_lowercase()));
    let left = fs::read_dir(place.store().join("index")).into_iter().flatten().count();
    match (done.code, is_clear, left) {
        (125, true, _) if !text.contains("panicked") => None,
        _ => Some(format!("{done:?}, {left} indexes")),
    }
}
