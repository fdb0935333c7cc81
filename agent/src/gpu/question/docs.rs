//! `docs/gpu-series.md` from the questions; a test fails when the file in the repository is not what they say.

use std::fmt::Write as _;

use super::SUBJECTS;
use crate::series::{Series, gpu::GPU};

fn markdown() -> String {
    let mut page = String::from(
        "# Where each number of a GPU comes from\n\nGenerated from the questions in `agent/src/gpu/question`; \
         `UPDATE_EXPECT=1 cargo test -p plumbline question::docs` writes it anew. What each series means: `docs/series.md`.\n\n\
         `light` is asked in every round (`gpu.interval_seconds`, 1 s; in an incident `gpu.incident_interval_milliseconds`, \
         250 ms), `full` every `gpu.full_interval_seconds` (5 s). A number in brackets is the field's id of \
         `nvmlDeviceGetFieldValues`. What a GPU, its driver or our permissions refuse has no series; `plumbline gpu` names \
         the reason. A question that is refused for good is asked again every 60 full rounds.\n\n\
         | series | own labels | unit | source | hardware | round |\n|---|---|---|---|---|---|\n",
    );
    let mut rows: Vec<String> = Vec::new();
    for question in SUBJECTS.iter().copied().flatten() {
        let round = question.round.as_str();
        for (series, label) in question.tells() {
            let unit = format!("{:?}", series.unit).to_lowercase();
            let unit = if series.name.ends_with("_per_second") { "bytes per second".to_owned() } else { unit };
            rows.push(format!(
                "| `{}` | {} | {} | `{}` | {} | {round} |\n",
                series.name,
                own_labels(series, &label),
                unit.replace("none", "–"),
                question.call,
                question.hardware,
            ));
        }
    }
    rows.sort();
    rows.into_iter().for_each(|row| {
        // Writing to a string does not fail.
        let _ = write!(page, "{row}");
    });
    page
}

/// `name=value` for what is fixed, the name alone for the rest.
fn own_labels(series: &Series, fixed: &[&str]) -> String {
    let names = series.labels.iter().skip(GPU.len()).enumerate();
    let labels: Vec<String> = names
        .map(|(at, name)| fixed.get(at).map_or_else(|| format!("`{name}`"), |value| format!("`{name}=\"{value}\"`")))
        .collect();
    if labels.is_empty() { "–".to_owned() } else { labels.join(", ") }
}

#[test]
fn the_page_in_the_repository_is_what_the_questions_say() {
    expect_test::expect_file!["../../../../docs/gpu-series.md"].assert_eq(&markdown());
}
