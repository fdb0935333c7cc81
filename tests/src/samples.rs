//! A page of standard input as JSON, one line for each sample: what `tests/exposition_peer.py` compares with another parser.

use std::io::{self, Read as _, Write as _};

use plumbline_exposition::{Format, Line, Lines, Text};
use serde_json::{Map, Value, json};

pub fn print() -> io::Result<()> {
    let mut page = Vec::new();
    io::stdin().read_to_end(&mut page)?;
    let mut out = io::stdout().lock();
    let mut labels = Vec::new();
    let mut lines = Lines::new(&page, Format::Text);
    while let Some(line) = lines.next_with(&mut labels) {
        let Ok(Line::Sample(sample)) = line else { continue };
        let text = |text: Text<'_>| text.unescape().into_owned();
        let labels: Map<String, Value> =
            labels.iter().map(|label| (text(label.name), Value::from(text(label.value)))).collect();
        // JSON has no word for what is not finite.
        writeln!(out, "{}", json!([text(sample.name), labels, sample.value.to_string(), sample.timestamp_ms]))?;
    }
    Ok(())
}
