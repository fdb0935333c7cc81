//! A document of headings, text and tables, as Markdown and as one HTML file without scripts or references.

use std::fmt::Write as _;

use crate::record::text::shown;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    Heading(String),
    Text(String),
    Table { head: Vec<String>, rows: Vec<Vec<String>> },
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Document {
    pub title: String,
    pub blocks: Vec<Block>,
}

impl Document {
    pub fn new(title: impl Into<String>) -> Self {
        Self { title: title.into(), blocks: Vec::new() }
    }

    pub fn heading(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Heading(text.into()));
    }

    pub fn text(&mut self, text: impl Into<String>) {
        self.blocks.push(Block::Text(text.into()));
    }

    /// A table; without rows, a line that says so.
    pub fn table(&mut self, head: &[&str], rows: Vec<Vec<String>>) {
        if rows.is_empty() {
            return self.text("None.");
        }
        self.blocks.push(Block::Table { head: head.iter().map(|&cell| cell.to_owned()).collect(), rows });
    }

    pub fn markdown(&self) -> String {
        let mut out = format!("# {}\n", markdown_cell(&self.title));
        for block in &self.blocks {
            let _ = match block {
                Block::Heading(text) => writeln!(out, "\n## {}", markdown_cell(text)),
                Block::Text(text) => writeln!(out, "\n{}", markdown_cell(text)),
                Block::Table { head, rows } => {
                    let row = |cells: &[String]| {
                        format!(
                            "| {} |\n",
                            cells.iter().map(|cell| markdown_cell(cell)).collect::<Vec<_>>().join(" | ")
                        )
                    };
                    let rule = "|---".repeat(head.len()) + "|\n";
                    let rows: String = rows.iter().map(|cells| row(cells)).collect();
                    write!(out, "\n{}{rule}{rows}", row(head))
                }
            };
        }
        out
    }

    pub fn html(&self) -> String {
        let title = html_text(&self.title);
        let mut body = format!("<h1>{title}</h1>\n");
        for block in &self.blocks {
            let _ = match block {
                Block::Heading(text) => writeln!(body, "<h2>{}</h2>", html_text(text)),
                Block::Text(text) => writeln!(body, "<p>{}</p>", html_text(text)),
                Block::Table { head, rows } => {
                    let row = |tag: &str, cells: &[String]| {
                        let cells: String =
                            cells.iter().map(|cell| format!("<{tag}>{}</{tag}>", html_text(cell))).collect();
                        format!("<tr>{cells}</tr>\n")
                    };
                    let rows: String = rows.iter().map(|cells| row("td", cells)).collect();
                    writeln!(body, "<table>\n<thead>{}</thead>\n<tbody>{rows}</tbody>\n</table>", row("th", head))
                }
            };
        }
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
             </head>\n<body>\n{body}</body>\n</html>\n"
        )
    }
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#1a1a1a}\
    h1{font-size:1.6em}h2{font-size:1.2em;margin-top:2em;border-bottom:1px solid #ccc}\
    table{border-collapse:collapse;width:100%;font-size:.93em}\
    th,td{border:1px solid #ddd;padding:.3em .6em;text-align:left;vertical-align:top;overflow-wrap:anywhere}\
    th{background:#f4f4f4}@media print{body{margin:0;max-width:none}}";

/// Text from records in a Markdown cell: nothing in it is markup.
fn markdown_cell(text: &str) -> String {
    let mut out = String::new();
    for c in shown(text.as_bytes()).chars() {
        match c {
            '\\' | '|' | '<' | '*' | '`' | '[' | ']' => out.extend(['\\', c]),
            c => out.push(c),
        }
    }
    out
}

fn html_text(text: &str) -> String {
    shown(text.as_bytes()).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;

    fn document() -> Document {
        let mut document = Document::new("A & B");
        document.heading("Hostile");
        document.text("<script>alert(1)</script> | *x* [y](z)");
        document.table(&["a", "b"], vec![vec!["1|2".into(), "<b>".into()]]);
        document.table(&["a"], Vec::new());
        document
    }

    #[test]
    fn markdown_takes_no_markup_from_its_texts() {
        expect![[r"
            # A & B

            ## Hostile

            \<script>alert(1)\</script> \| \*x\* \[y\](z)

            | a | b |
            |---|---|
            | 1\|2 | \<b> |

            None.
        "]]
        .assert_eq(&document().markdown());
    }

    #[test]
    fn html_takes_no_markup_from_its_texts() {
        let html = document().html();
        assert!(html.contains("<p>&lt;script&gt;alert(1)&lt;/script&gt; | *x* [y](z)</p>"), "{html}");
        assert!(html.contains("<td>&lt;b&gt;</td>") && !html.contains("<script"), "{html}");
    }
}
