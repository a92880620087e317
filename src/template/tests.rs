use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn data() -> Value {
    json!({
        "Id": "0123456789abcdef", "Name": "box", "Count": 3, "Zero": 0, "Half": 0.5, "Yes": true, "None": null,
        "List": ["a", "b", "c"], "Numbers": [1, 2], "Empty": [],
        "Labels": {"b": "two", "a": "one"}, "Config": {"Env": ["A=1", "B=2"], "Tty": false},
        "Mixed": {"x": 1}, "Hostile": "{{.Id}}",
    })
}

fn said(text: &str) -> String {
    match Template::parse(text).and_then(|template| template.render(&data())) {
        Ok(text) => text,
        Err(error) => format!("error {error}"),
    }
}

#[track_caller]
fn all(cases: &[(&str, &str)]) {
    for (template, wanted) in cases {
        assert_eq!(said(template), *wanted, "{template}");
    }
}

#[test]
fn fields_and_literals() {
    all(&[
        ("", ""),
        ("plain } {", "plain } {"),
        ("{{.Name}}", "box"),
        ("<{{ .Config.Tty }}>", "<false>"),
        ("{{$.Name}}{{(.Config).Tty}}", "boxfalse"),
        ("{{.Count}} {{.Half}} {{.Yes}} {{.None}}", "3 0.5 true <no value>"),
        ("{{.List}} {{.Labels}} {{.Empty}}", "[a b c] map[a:one b:two] []"),
        ("{{\"a\\tb\\x41\\u00e9\"}}{{`c\\t`}}{{-1}}{{2.5}}{{true}}", "a\tbA\u{e9}c\\t-12.5true"),
        ("{{/* words */}}a{{- /* x */ -}} b", "ab"),
        ("a {{- .Count -}} b", "a3b"),
        ("a \n{{- \"x\"}} {{\"y\" -}}\n z", "ax yz"),
        ("{{.Hostile}}", "{{.Id}}"),
    ]);
}

#[test]
fn blocks() {
    all(&[
        ("{{if .Yes}}a{{else}}b{{end}}{{if .Zero}}a{{else}}b{{end}}", "ab"),
        ("{{if .Zero}}a{{else if .Name}}b{{else}}c{{end}}", "b"),
        ("{{range .List}}{{.}},{{end}}", "a,b,c,"),
        ("{{range .Empty}}x{{else}}none{{end}}{{range .None}}x{{end}}", "none"),
        ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=one b=two "),
        ("{{range $i, $v := .List}}{{$i}}{{$v}}{{$.Name}}{{end}}", "0abox1bbox2cbox"),
        ("{{range $v := .Config.Env}}{{println $v}}{{end}}", "A=1\nB=2\n"),
        ("{{with .Config}}{{.Tty}}{{end}}{{with .None}}x{{else}}y{{end}}", "falsey"),
        ("{{$x := .Name}}{{if true}}{{$x = \"new\"}}{{end}}{{$x}}", "new"),
        ("{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"),
    ]);
}

#[test]
fn functions_of_go_and_docker() {
    all(&[
        ("{{json .Config}}", r#"{"Env":["A=1","B=2"],"Tty":false}"#),
        ("{{.Labels | json}}", r#"{"a":"one","b":"two"}"#),
        ("{{index .Labels \"b\"}}{{index .Labels \"c\"}}{{index .List 1}}", "twob"),
        ("{{index .Config \"Env\" 1}} {{(index .Config \"Env\")}}", "B=2 [A=1 B=2]"),
        ("{{index .Mixed \"y\"}}", "<no value>"),
        ("{{.Labels.a}}{{.Labels \"b\"}}{{.Labels \"c\"}}", "onetwo"),
        ("{{len .Name}}{{len .List}}{{len .Labels}}", "332"),
        ("{{upper .Name}}{{lower \"ABC\"}}{{title \"a word's end\"}}", "BOXabcA Word's End"),
        ("{{join .List \", \"}}{{split \"a:b\" \":\"}}{{index (split \"a:b\" \":\") 1}}", "a, b, c[a b]b"),
        (
            "{{printf \"%s %d %v %q %t %x\" .Name .Count .List .Name .Yes .Name}}",
            "box 3 [a b c] \"box\" true 626f78",
        ),
        (
            "{{printf \"%-5s|%5s|%05d|%+d|%.2f|%.3s|%%\" \"a\" \"b\" 42 1 .Half .Id}}",
            "a    |    b|00042|+1|0.50|012|%",
        ),
        ("{{print 1 2 \"a\" \"b\" 3}}{{println}}", "1 2a b3\n".replace("a b", "ab").as_str()),
        (
            "{{eq .Count 3}}{{eq .Name \"a\" \"box\"}}{{ne .Name \"x\"}}{{lt 1 2}}{{ge \"b\" \"a\"}}",
            "truetruetruetruetrue",
        ),
        ("{{and .Yes .Name}}{{or .Zero .Name}}{{not .Yes}}{{and .Zero .Nothing.There}}", "boxboxfalse0"),
        ("{{.Id | printf \"%.12s\" | upper}}", "0123456789AB"),
        ("{{slice .Id 0 4}}{{slice .List 1}}{{truncate .Id 3}}<{{pad .Name 1 2}}>", "0123[b c]012< box  >"),
        ("{{if and (eq .Count 3) (gt .Count 2)}}yes{{end}}", "yes"),
    ]);
}

#[test]
fn what_is_wrong_is_said() {
    all(&[
        ("{{.Nope}}", r#"error template: :1:2: executing "" at <.Nope>: map has no entry for key "Nope""#),
        (
            "a\n{{.Name.X}}",
            r#"error template: :2:3: executing "" at <.Name.X>: can't evaluate field X in type string"#,
        ),
        (
            "{{.None.X}}",
            r#"error template: :1:2: executing "" at <.None.X>: nil pointer evaluating interface {}.X"#,
        ),
        ("{{nope .Name}}", "error template: :1: function \"nope\" not defined"),
        ("{{html .Name}}", "error template: :1: function \"html\" is not supported"),
        ("{{define \"x\"}}{{end}}", "error template: :1: {{define}} is not supported"),
        ("{{range .List}}{{break}}{{end}}", "error template: :1: {{break}} is not supported"),
        ("{{.Name", "error template: :1: unclosed action"),
        ("{{if .Name}}", "error template: :1: unexpected EOF: a block has no {{end}}"),
        ("{{end}}", "error template: :1: unexpected {{end}}"),
        ("{{$x}}", "error template: :1: undefined variable \"$x\""),
        ("{{if $y := 1}}{{end}}{{$y}}", "error template: :1: undefined variable \"$y\""),
        ("{{}}", "error template: :1: missing value for command"),
        ("{{\"a}}", "error template: :1: unterminated quoted string"),
        ("{{/* a", "error template: :1: unclosed comment"),
        ("{{1 | 2}}", "error template: :1: non executable command in pipeline: only a function can follow |"),
        ("{{(.Name}}", "error template: :1: unclosed left paren"),
        ("{{'a'}}", "error template: :1: character constants are not supported: write a string"),
        (
            "{{index .List 9}}",
            r#"error template: :1:2: executing "" at <index .List 9>: error calling index: index out of range: 9"#,
        ),
        (
            "{{eq .Count \"3\"}}",
            r#"error template: :1:2: executing "" at <eq .Count "3">: error calling eq: incompatible types for comparison"#,
        ),
        (
            "{{range .Name}}{{end}}",
            r#"error template: :1:8: executing "" at <.Name>: range can't iterate over string"#,
        ),
    ]);
    for wrong in [
        "{{.Name 1}}",
        "{{printf \"%z\" 1}}",
        "{{printf \"%d\" .Name}}",
        "{{printf \"%99999d\" 1}}",
        "{{join .Numbers \",\"}}",
        "{{len 3}}",
        "{{upper 3}}",
    ] {
        assert!(said(wrong).starts_with("error template: :1:2: executing"), "{wrong}: {}", said(wrong));
    }
}

#[test]
fn headings_stay_readable() {
    let headings = json!({"ID": "CONTAINER ID", "Labels": "LABELS", "Label": ""});
    let template =
        Template::parse(r#"{{json .ID}} {{lower .ID}} {{join .Labels ","}} {{.Label "com.x.swarm-id"}}"#);
    let said = template.unwrap().render_headings(&headings).unwrap();
    assert_eq!(said, "CONTAINER ID CONTAINER ID LABELS SWARM ID");
}

#[test]
fn nothing_grows_for_ever() {
    let doubled = format!("{{{{$x := \"0123456789\"}}}}{}", "{{$x = print $x $x}}".repeat(60));
    assert!(said(&doubled).contains("more than"), "{}", said(&doubled));
    let nested = format!("{}x{}", "{{range $.List}}".repeat(40), "{{end}}".repeat(40));
    assert!(said(&nested).contains("more than"), "{:.200}", said(&nested));
    let deep = format!("{}1{}", "{{".to_owned() + &"(".repeat(100_000), ")".repeat(100_000) + "}}");
    assert!(said(&deep).contains("longer than"), "{:.200}", said(&deep));
    let deep = format!("{}1{}", "{{".to_owned() + &"(".repeat(1000), ")".repeat(1000) + "}}");
    assert!(said(&deep).contains("inside each other"), "{:.200}", said(&deep));
    let chain = format!("{{{{if false}}}}{}{{{{end}}}}", "{{else if false}}".repeat(3000));
    assert!(said(&chain).contains("inside each other"), "{:.200}", said(&chain));
}

/// Pieces from which a random template is made, so that many of them make sense.
const PIECES: [&str; 48] = [
    "{{",
    "}}",
    "{{-",
    "-}}",
    " ",
    ".",
    ".Name",
    ".List",
    ".Labels",
    ".Config.Env",
    "$",
    "$x",
    ":=",
    "=",
    "|",
    "(",
    ")",
    ",",
    "if ",
    "else",
    "{{end}}",
    "range ",
    "with ",
    "index ",
    "printf ",
    "\"%s\"",
    "\"%v %d\"",
    "json ",
    "len ",
    "eq ",
    "and ",
    "or ",
    "not ",
    "slice ",
    "split ",
    "join ",
    "print ",
    "0",
    "1",
    "-7",
    "2.5",
    "\"a",
    "`",
    "/*",
    "*/",
    "\\",
    "\u{e9}",
    "\n",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_template_panics(text in ".{0,80}") {
        said(&text);
        said(&format!("{{{{{text}}}}}"));
    }

    #[test]
    fn no_likely_template_panics(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..40)) {
        said(&pieces.concat());
    }

    #[test]
    fn text_without_braces_stays(text in "[^{]{0,200}") {
        prop_assert_eq!(said(&text), text);
    }

    #[test]
    fn texts_come_back_whole(value in ".{0,100}") {
        let template = Template::parse("{{.V}}{{json .V}}").unwrap();
        let rendered = template.render(&json!({"V": value})).unwrap();
        let coded = rendered.strip_prefix(value.as_str()).unwrap();
        prop_assert_eq!(serde_json::from_str::<String>(coded).unwrap(), value);
    }
}
