//! What is wrong with a policy file, where, and what to write instead.
//!
//! A [`Problem`] has one sentence of what is wrong, a place, and usually one sentence of what to write. All problems of
//! one file are one [`InvalidPolicy`], which miette draws with the file name, line, column, the source and a caret.

use std::fmt;
use std::ops::Range;

use miette::{Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, SourceCode};

/// After these, a person has seen enough.
const MAX_PROBLEMS: usize = 50;
/// Longer lines are cut where they are shown.
const MAX_LINE_BYTES: usize = 400;

/// One mistake at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
    pub(crate) label: String,
    pub(crate) help: Option<String>,
    /// Another place that explains this one: the first of two twins.
    pub(crate) other: Option<Box<(Range<usize>, String)>>,
}

impl Problem {
    pub(crate) fn new(at: &Range<usize>, message: impl Into<String>) -> Self {
        Self { at: at.clone(), message: one_line(&message.into()), label: "here".to_owned(), help: None, other: None }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = one_line(&label.into());
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(one_line(&help.into()));
        self
    }

    pub(crate) fn other(mut self, at: &Range<usize>, label: impl Into<String>) -> Self {
        self.other = Some(Box::new((at.clone(), one_line(&label.into()))));
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let here = LabeledSpan::new_primary_with_span(Some(self.label.clone()), self.at.clone());
        let other =
            self.other.as_deref().map(|(at, label)| LabeledSpan::new_with_span(Some(label.clone()), at.clone()));
        Some(Box::new(std::iter::once(here).chain(other)))
    }
}

/// A policy file, or one that tells of an event, that cannot be used, with everything that is wrong with it.
#[derive(Debug)]
pub struct InvalidPolicy {
    what: &'static str,
    source: NamedSource<String>,
    problems: Vec<Problem>,
}

impl InvalidPolicy {
    /// `problems` must not be empty.
    pub(crate) fn new(name: &str, text: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.at.start);
        if problems.len() > MAX_PROBLEMS {
            let more = problems.len() - MAX_PROBLEMS;
            problems.truncate(MAX_PROBLEMS);
            let last = problems[MAX_PROBLEMS - 1].at.clone();
            problems.push(Problem::new(&last, format!("{more} more mistakes are not shown")).label("from here on"));
        }
        let excerpt = Excerpt::of(text);
        for problem in &mut problems {
            problem.at = excerpt.place(&problem.at);
            if let Some(other) = &mut problem.other {
                other.0 = excerpt.place(&other.0);
            }
        }
        Self { what: "policy file", source: NamedSource::new(name, excerpt.text), problems }
    }

    /// The same of a file that tells of an event.
    pub(crate) fn of_event(name: &str, text: &str, problems: Vec<Problem>) -> Self {
        Self { what: "event file", ..Self::new(name, text, problems) }
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        self.source.name()
    }

    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Line and column of a problem of this file, both from 1, the column in characters.
    pub fn place(&self, problem: &Problem) -> (usize, usize) {
        let before = self.source.inner().get(..problem.at.start).unwrap_or("");
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// The problems drawn with source and carets, without colour.
    pub fn render(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let handler = GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor()).with_width(110);
        for problem in &self.problems {
            handler.render_report(out, &Located { problem, source: &self.source })?;
            out.write_char('\n')?;
        }
        Ok(())
    }
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mistakes = if self.problems.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} `{}` has {} {mistakes}", self.what, self.name(), self.problems.len())?;
        if let Some(first) = self.problems.first() {
            let (line, column) = self.place(first);
            write!(f, "; line {line}, column {column}: {first}")?;
        }
        Ok(())
    }
}

impl std::error::Error for InvalidPolicy {}

impl Diagnostic for InvalidPolicy {
    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(&self.source)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn Diagnostic> + 'a>> {
        Some(Box::new(self.problems.iter().map(|problem| problem as &dyn Diagnostic)))
    }
}

/// A problem together with the text it lies in.
#[derive(Debug)]
struct Located<'a> {
    problem: &'a Problem,
    source: &'a NamedSource<String>,
}

impl fmt::Display for Located<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self.problem, f)
    }
}

impl std::error::Error for Located<'_> {}

impl Diagnostic for Located<'_> {
    fn help(&self) -> Option<Box<dyn fmt::Display + '_>> {
        self.problem.help()
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.problem.labels()
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source)
    }
}

/// A file's text as it can be shown: without control characters, which would drive the reader's terminal, and without
/// endless lines.
struct Excerpt {
    text: String,
    /// Where each line began in the file, and where it begins now.
    lines: Vec<(usize, usize)>,
}

impl Excerpt {
    fn of(text: &str) -> Self {
        let mut excerpt = Self { text: String::new(), lines: Vec::new() };
        let mut start = 0;
        for line in text.split_inclusive('\n') {
            excerpt.lines.push((start, excerpt.text.len()));
            start += line.len();
            let shown = &line[..line.floor_char_boundary(MAX_LINE_BYTES)];
            excerpt.text.push_str(&printable(shown));
            if shown.len() < line.len() {
                excerpt.text.push_str("…\n");
            }
        }
        excerpt
    }

    /// A place in the file as a place in the excerpt; what was cut off lies at the end of its line.
    fn place(&self, at: &Range<usize>) -> Range<usize> {
        let start = self.offset(at.start);
        start..self.offset(at.end).max(start)
    }

    fn offset(&self, in_file: usize) -> usize {
        let line = self.lines.partition_point(|&(start, _)| start <= in_file).saturating_sub(1);
        let (from, to) = self.lines.get(line).copied().unwrap_or_default();
        let end = self.lines.get(line + 1).map_or(self.text.len(), |&(_, next)| next);
        // A place behind the end of its line would be shown in the next one.
        let end = if self.text[..end].ends_with('\n') { end - 1 } else { end };
        self.text.floor_char_boundary((to + (in_file - from)).min(end))
    }
}

/// Control characters replaced by others of the same length, so that places stay true.
fn printable(text: &str) -> String {
    text.chars()
        .map(|character| match character {
            '\n' | '\t' => character,
            '\r' => ' ',
            _ if character.is_control() && character.len_utf8() == 1 => '?',
            _ if character.is_control() => '¿',
            _ => character,
        })
        .collect()
}

/// The line, from 1, of a place in a text.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

/// The word of `known` that was probably meant: at most two edits away, and no more than half of it.
pub(crate) fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words cannot be within two edits of ours, and must not cost time.
    let short: String = word.chars().take(64).collect();
    known
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&short.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= 2 && 2 * distance <= candidate.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// "`a`, `b` or `c`".
pub(crate) fn one_of<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut quoted: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    let last = quoted.pop().unwrap_or_default();
    if quoted.is_empty() { last } else { format!("{} or {last}", quoted.join(", ")) }
}

/// Words that may hold text of the user's: without control characters.
fn one_line(words: &str) -> String {
    printable(words).replace(['\n', '\t'], " ")
}

/// Text of the user's, quoted back: short.
pub(crate) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(60).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("`{short}`")
}
