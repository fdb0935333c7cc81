//! `docs/engines.md`, from the tables: which metric of which engine each canonical series is, and what its numbers mean there.

use std::fmt::Write as _;

use expect_test::expect_file;

use super::{DIALECTS, Dialect, Field, Own};
use crate::{
    engines::translate::source_words,
    series::{Series, engine::ROWS},
};

const HEAD: &str = include_str!("../head.md");

#[test]
fn the_table_of_engines_is_that_of_the_code() {
    let mut text = HEAD.to_owned();
    text += "\n## Dialects\n\n| dialect | engines | prefixes | model label | found by |\n|---|---|---|---|---|\n";
    for dialect in DIALECTS {
        let list = |words: &[&str]| words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let prefixes: Vec<&str> =
            dialect.prefixes.iter().map(|prefix| if prefix.is_empty() { "(none)" } else { prefix }).collect();
        writeln!(
            text,
            "| `{}` | {} | {} | {} | port {} (`{}`), `{}` |",
            dialect.name,
            dialect.about,
            list(&prefixes),
            if dialect.model_labels.is_empty() { "none".to_owned() } else { list(dialect.model_labels) },
            dialect.process.default_port,
            dialect.process.port_options.join("`, `"),
            dialect.process.path,
        )
        .unwrap();
    }
    text += "\n## Series\n";
    for series in ROWS.iter().copied().filter(|series| series.source != "the scrape") {
        writeln!(text, "\n### `{}`\n\n{}\n\n| dialect | is |\n|---|---|", series.name, series.help).unwrap();
        for dialect in DIALECTS {
            writeln!(text, "| `{}` | {} |", dialect.name, cell(dialect, series)).unwrap();
        }
    }
    expect_file!["../../../../docs/engines.md"].assert_eq(&text);
}

fn cell(dialect: &Dialect, series: &Series) -> String {
    let fields: Vec<String> = dialect.fields.iter().filter(|field| field.series == series).map(one).collect();
    if fields.is_empty() { "absent".to_owned() } else { fields.join("<br>") }
}

fn one(field: &Field) -> String {
    let sources: Vec<String> = field.sources.iter().map(|source| format!("`{}`", source_words(source, ""))).collect();
    let own = match field.own {
        Own::Fixed(value) => format!("{value}: "),
        Own::From(label, _) | Own::StatusClass(label) => format!("by `{label}`: "),
        Own::None => String::new(),
    };
    let means: Vec<&str> =
        std::iter::once(field.when.words()).chain(field.means.iter().map(|means| means.words())).collect();
    format!("{own}{} – {}", sources.join(", else "), means.join(", "))
}
