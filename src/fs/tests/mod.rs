//! The filesystem against a model, without FUSE, on a real upper.
//!
//! An ordinary user's upper is tested by running the test binary as one; what that needs of `Upper` is forced here
//! too, so that every run covers all forms.

mod bounds;
mod cases;
mod content;
mod crash;
mod crash_cases;
mod model;
mod ops;
mod sharing;
mod times;
mod twins;
mod verbs;
mod world;

use proptest::prelude::*;

use crate::union::tests::unpack::{Dir, layer};
use crate::upper::tests::Form;
use ops::script;
use world::{Numbers, World};

fn layers(links_below: bool) -> impl Strategy<Value = Vec<Dir>> {
    proptest::collection::vec(layer(links_below), 1..4)
}

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(cases);
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 20_000, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config(300))]

    #[test]
    fn like_the_model(layers in layers(false), script in script(false)) {
        World::new(&layers, Form::Found, Numbers::Last).run(&script);
    }

    #[test]
    fn like_the_model_with_named_whiteouts(layers in layers(false), script in script(false)) {
        World::new(&layers, Form::NamedWhiteouts, Numbers::Last).run(&script);
    }

    #[test]
    fn like_the_model_rootless(layers in layers(false), script in script(false)) {
        World::new(&layers, Form::Rootless, Numbers::Last).run(&script);
    }

    #[test]
    fn like_the_model_rootless_with_named_whiteouts(layers in layers(false), script in script(false)) {
        World::new(&layers, Form::RootlessNamed, Numbers::Last).run(&script);
    }

    #[test]
    fn like_the_model_when_layers_fail(layers in layers(false), script in script(true)) {
        World::new(&layers, Form::Found, Numbers::Last).run(&script);
    }

    #[test]
    fn like_the_model_with_links_below(layers in layers(true), script in script(false)) {
        World::new(&layers, Form::Found, Numbers::BelowVary).run(&script);
    }

    #[test]
    fn like_the_model_with_numbers_that_do_not_fit(layers in layers(true), script in script(false)) {
        World::new(&layers, Form::Found, Numbers::Far).run(&script);
    }
}
