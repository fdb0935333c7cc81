//! `docs/series.md` from the table; a test fails when the file in the repository is not what the table says.

use std::fmt::Write as _;

use super::{Series, TABLE};

/// The page, in the order of the table.
pub fn markdown() -> String {
    let mut page = String::from(
        "# Series\n\nGenerated from the table in `agent/src/series`; `UPDATE_EXPECT=1 cargo test -p plumbline series::docs` \
         writes it anew.\nA series that has no value is absent: nothing unknown is zero.\n",
    );
    for rows in TABLE {
        for row in *rows {
            describe(&mut page, row);
        }
    }
    page
}

fn describe(page: &mut String, row: &Series) {
    let labels = if row.labels.is_empty() { "none".to_owned() } else { row.labels.join(", ") };
    // Writing to a string does not fail.
    let _ = write!(
        page,
        "\n## `{}`\n\n{}\n\n- kind: {:?}, unit: {:?}\n- labels: {labels}\n- source: {}\n- OpenTelemetry: `{}`\n",
        row.name,
        row.help,
        row.kind,
        row.unit,
        row.source,
        if row.otel.is_empty() { "–" } else { row.otel }
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_the_repository_is_the_table() {
        expect_test::expect_file!["../../../docs/series.md"].assert_eq(&super::markdown());
    }
}
