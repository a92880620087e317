//! Hostile documents of an OCI layout: an error or an image, never a panic and never an endless loop.
//!
//! The input is documents, each ended by a NUL, the last `index.json`, the others blobs. In those that follow, a number's
//! digit 64 times after `sha256:` stands for the digest of blob 0 to 9, and `9000000` and that digit for its size: so
//! what is inside is reached.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (layout, blobs) = (dir.path().join("image"), dir.path().join("image/blobs/sha256"));
    fs::create_dir_all(&blobs).expect("a temporary directory");
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("a temporary file");
    let mut stands_for: Vec<(String, String)> = Vec::new();
    let documents: Vec<&[u8]> = data.split(|byte| *byte == 0).take(10).collect();
    let Some((index, documents)) = documents.split_last() else { return };
    let replaced = |document: &[u8], stands_for: &[(String, String)]| match str::from_utf8(document) {
        Ok(text) => {
            let replace = |text: String, (from, to): &(String, String)| text.replace(from, to);
            stands_for.iter().fold(text.to_owned(), replace).into_bytes()
        }
        Err(_) => document.to_vec(),
    };
    for (number, document) in documents.iter().enumerate() {
        let document = replaced(document, &stands_for);
        let hex = layerfs_fuzz::sha256_hex(&document);
        fs::write(blobs.join(&hex), &document).expect("a temporary file");
        let digit = number.to_string();
        stands_for.push((format!("sha256:{}", digit.repeat(64)), format!("sha256:{hex}")));
        stands_for.push((format!("9000000{digit}"), document.len().to_string()));
    }
    fs::write(layout.join("index.json"), replaced(index, &stands_for)).expect("a temporary file");
    layerfs_fuzz::open_image(&format!("oci:{}", layout.display()), dir.path());
    layerfs_fuzz::open_image(&format!("oci:{}:latest", layout.display()), dir.path());
});
