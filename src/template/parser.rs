//! From words to a tree.

use super::TemplateError;
use super::functions::{self, Function};
use super::lexer::{self, Kind, Piece, Word, refused};

/// Blocks and parentheses inside each other.
const DEPTH_MAX: usize = 64;

/// A piece of the tree.
#[derive(Clone, Debug)]
pub(super) enum Node {
    /// Printed as it is.
    Text(String),
    /// `{{pipeline}}`: printed, unless it goes into a variable.
    Print(Pipeline),
    /// `{{if}}`
    If(Branches),
    /// `{{with}}`
    With(Branches),
    /// `{{range}}`
    Range(Branches),
}

/// A block with two sides.
#[derive(Clone, Debug)]
pub(super) struct Branches {
    pub(super) pipeline: Pipeline,
    pub(super) then: Vec<Node>,
    pub(super) otherwise: Vec<Node>,
}

/// `$x := command | command`
#[derive(Clone, Debug)]
pub(super) struct Pipeline {
    pub(super) variables: Vec<String>,
    /// `=`, not `:=`.
    pub(super) assigns: bool,
    pub(super) commands: Vec<Command>,
    pub(super) span: Span,
}

/// A piece of the template's text, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
}

/// An operand, or something that is called with operands.
#[derive(Clone, Debug)]
pub(super) struct Command {
    pub(super) first: Operand,
    pub(super) arguments: Vec<Operand>,
    pub(super) span: Span,
}

/// A value with fields of it: `$x.A.B`.
#[derive(Clone, Debug)]
pub(super) struct Operand {
    pub(super) base: Base,
    pub(super) fields: Vec<String>,
    pub(super) span: Span,
}

/// What an operand begins with.
#[derive(Clone, Debug)]
pub(super) enum Base {
    Dot,
    Variable(String),
    Literal(serde_json::Value),
    Function(Function),
    Group(Box<Pipeline>),
}

/// How a list of nodes ends.
enum End {
    Text,
    Close,
    Else(Vec<Word>),
}

/// Understands a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut parser = Parser {
        text,
        pieces: lexer::pieces(text)?.into_iter(),
        known: vec![String::new()],
        depth: 0,
        at: 0,
    };
    let (nodes, end) = parser.nodes()?;
    match end {
        End::Text => Ok(nodes),
        End::Close => Err(parser.wrong("unexpected {{end}}")),
        End::Else(_) => Err(parser.wrong("unexpected {{else}}")),
    }
}

struct Parser<'a> {
    text: &'a str,
    pieces: std::vec::IntoIter<Piece>,
    /// Variables that can be named here.
    known: Vec<String>,
    depth: usize,
    /// Where it has got to, for messages.
    at: usize,
}

impl Parser<'_> {
    fn nodes(&mut self) -> Result<(Vec<Node>, End), TemplateError> {
        let mut nodes = Vec::new();
        while let Some(piece) = self.pieces.next() {
            let words = match piece {
                Piece::Text(text) => {
                    nodes.push(Node::Text(text));
                    continue;
                }
                Piece::Action(words) => words,
            };
            let Some(first) = words.first() else { return Err(self.wrong("missing value for command")) };
            self.at = first.start;
            let rest = &words[1..];
            let node = match &first.kind {
                Kind::Name(name) => match name.as_str() {
                    "if" => Node::If(self.block(rest, "if")?),
                    "with" => Node::With(self.block(rest, "with")?),
                    "range" => Node::Range(self.block(rest, "range")?),
                    "end" if rest.is_empty() => return Ok((nodes, End::Close)),
                    "end" => return Err(self.wrong("unexpected words in end")),
                    "else" => return Ok((nodes, End::Else(rest.to_vec()))),
                    "break" | "continue" | "define" | "template" | "block" => {
                        return Err(self.wrong(&format!("{{{{{name}}}}} is not supported")));
                    }
                    _ => Node::Print(self.whole(&words, "command")?),
                },
                _ => Node::Print(self.whole(&words, "command")?),
            };
            nodes.push(node);
        }
        Ok((nodes, End::Text))
    }

    /// From the words behind the keyword to `{{end}}`.
    fn block(&mut self, words: &[Word], keyword: &'static str) -> Result<Branches, TemplateError> {
        self.deeper()?;
        let outer = self.known.len();
        let pipeline = self.whole(words, keyword)?;
        if pipeline.variables.len() > 1 && keyword != "range" {
            return Err(self.wrong(&format!("too many declarations in {keyword}")));
        }
        let (then, end) = self.nodes()?;
        let otherwise = match end {
            End::Text => return Err(self.wrong("unexpected EOF: a block has no {{end}}")),
            End::Close => Vec::new(),
            End::Else(words) => self.otherwise(&words, keyword)?,
        };
        self.known.truncate(outer);
        self.depth -= 1;
        Ok(Branches { pipeline, then, otherwise })
    }

    fn otherwise(&mut self, words: &[Word], keyword: &'static str) -> Result<Vec<Node>, TemplateError> {
        match words.first().map(|word| &word.kind) {
            None => match self.nodes()? {
                (nodes, End::Close) => Ok(nodes),
                (_, End::Text) => Err(self.wrong("unexpected EOF: a block has no {{end}}")),
                (_, End::Else(_)) => Err(self.wrong("unexpected {{else}}")),
            },
            // It shares the end of the block that it is in.
            Some(Kind::Name(name)) if name == keyword && name == "if" => {
                Ok(vec![Node::If(self.block(&words[1..], "if")?)])
            }
            Some(Kind::Name(name)) if name == keyword && name == "with" => {
                Ok(vec![Node::With(self.block(&words[1..], "with")?)])
            }
            Some(_) => Err(self.wrong("unexpected words in else")),
        }
    }

    /// A pipeline of all these words.
    fn whole(&mut self, words: &[Word], context: &str) -> Result<Pipeline, TemplateError> {
        let mut reader = Reader { words, next: 0 };
        let pipeline = self.pipeline(&mut reader, context)?;
        match reader.peek() {
            None => Ok(pipeline),
            Some(word) => Err(refused(self.text, word.start, "unexpected right paren")),
        }
    }

    fn pipeline(&mut self, reader: &mut Reader<'_>, context: &str) -> Result<Pipeline, TemplateError> {
        self.deeper()?;
        let start = reader.peek().map_or(self.at, |word| word.start);
        let (variables, assigns) = self.declarations(reader, context)?;
        let mut commands = vec![self.command(reader, context)?];
        while reader.takes("|") {
            let command = self.command(reader, context)?;
            if !matches!(command.first.base, Base::Function(_)) && command.first.fields.is_empty() {
                let message = "non executable command in pipeline: only a function can follow |";
                return Err(refused(self.text, command.span.start, message));
            }
            commands.push(command);
        }
        let end = commands.last().map_or(start, |command| command.span.end);
        // Not before: a variable does not exist in its own value.
        if assigns {
            for name in &variables {
                self.must_know(name, start)?;
            }
        } else {
            self.known.extend(variables.iter().cloned());
        }
        self.depth -= 1;
        Ok(Pipeline { variables, assigns, commands, span: Span { start, end } })
    }

    /// `$x :=`, `$x =`, and in a range `$k, $v :=`.
    fn declarations(
        &self,
        reader: &mut Reader<'_>,
        context: &str,
    ) -> Result<(Vec<String>, bool), TemplateError> {
        let start = reader.next;
        let mut variables = Vec::new();
        while let Some(Kind::Variable(name)) = reader.peek().map(|word| &word.kind) {
            variables.push(name.clone());
            reader.next += 1;
            if variables.len() == 1 && context == "range" && reader.takes(",") {
                continue;
            }
            if reader.takes(":=") {
                return Ok((variables, false));
            }
            if reader.takes("=") {
                return Ok((variables, true));
            }
            break;
        }
        reader.next = start;
        Ok((Vec::new(), false))
    }

    fn command(&mut self, reader: &mut Reader<'_>, context: &str) -> Result<Command, TemplateError> {
        let missing = || refused(self.text, self.at, format!("missing value for {context}"));
        let start = reader.peek().ok_or_else(missing)?.start;
        let Some(first) = self.operand(reader)? else {
            return Err(refused(self.text, start, format!("missing value for {context}")));
        };
        let mut arguments = Vec::new();
        while let Some(argument) = self.operand(reader)? {
            if !reader.is_apart_at(argument.span.start) {
                return Err(refused(self.text, argument.span.start, "a space is missing between operands"));
            }
            arguments.push(argument);
        }
        let end = arguments.last().map_or(first.span.end, |argument| argument.span.end);
        Ok(Command { first, arguments, span: Span { start, end } })
    }

    /// The next one, or none where a command ends.
    fn operand(&mut self, reader: &mut Reader<'_>) -> Result<Option<Operand>, TemplateError> {
        let Some(word) = reader.peek() else { return Ok(None) };
        let (start, mut end) = (word.start, word.end);
        let mut fields = Vec::new();
        let base = match &word.kind {
            Kind::Mark("|" | ")") => return Ok(None),
            Kind::Mark("(") => {
                reader.next += 1;
                let pipeline = self.pipeline(reader, "parenthesized pipeline")?;
                match reader.peek() {
                    Some(Word { kind: Kind::Mark(")"), end: close, .. }) => end = *close,
                    _ => return Err(refused(self.text, start, "unclosed left paren")),
                }
                Base::Group(Box::new(pipeline))
            }
            Kind::Mark(mark) => {
                return Err(refused(self.text, start, format!("unexpected {mark:?} in operand")));
            }
            Kind::Dot => Base::Dot,
            Kind::Field(name) => {
                fields.push(name.clone());
                Base::Dot
            }
            Kind::Variable(name) => {
                self.must_know(name, start)?;
                Base::Variable(name.clone())
            }
            Kind::Text(text) => Base::Literal(text.clone().into()),
            Kind::Number(number) => Base::Literal(number.clone().into()),
            Kind::Name(name) => match name.as_str() {
                "true" => Base::Literal(true.into()),
                "false" => Base::Literal(false.into()),
                "nil" => Base::Literal(serde_json::Value::Null),
                _ => Base::Function(functions::named(name).map_err(|why| refused(self.text, start, why))?),
            },
        };
        reader.next += 1;
        while let Some(Word { kind: Kind::Field(name), is_apart: false, end: close, .. }) = reader.peek() {
            if matches!(base, Base::Literal(_) | Base::Function(_)) {
                return Err(refused(
                    self.text,
                    start,
                    format!("unexpected .{name} after a literal or function"),
                ));
            }
            fields.push(name.clone());
            end = *close;
            reader.next += 1;
        }
        Ok(Some(Operand { base, fields, span: Span { start, end } }))
    }

    fn must_know(&self, name: &str, at: usize) -> Result<(), TemplateError> {
        match self.known.iter().any(|known| known == name) {
            true => Ok(()),
            false => Err(refused(self.text, at, format!("undefined variable \"${name}\""))),
        }
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        match self.depth > DEPTH_MAX {
            true => {
                Err(self.wrong(&format!("more than {DEPTH_MAX} blocks and parentheses inside each other")))
            }
            false => Ok(()),
        }
    }

    fn wrong(&self, message: &str) -> TemplateError {
        refused(self.text, self.at, message)
    }
}

struct Reader<'a> {
    words: &'a [Word],
    next: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a Word> {
        self.words.get(self.next)
    }

    fn takes(&mut self, mark: &str) -> bool {
        let is_it = self.peek().is_some_and(|word| matches!(word.kind, Kind::Mark(found) if found == mark));
        self.next += usize::from(is_it);
        is_it
    }

    fn is_apart_at(&self, start: usize) -> bool {
        self.words.iter().any(|word| word.start == start && word.is_apart)
    }
}
