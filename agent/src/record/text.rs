//! Bytes that need not be text, made safe to show, and kept exactly beside.
//!
//! A file name may hold any byte but NUL and slash: line breaks, terminal escapes, characters that turn the reading
//! direction. What is shown has those replaced by U+FFFD; whenever that changed anything, the exact bytes go along in
//! base64, because two different names can look the same once replaced.

use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Bytes as they are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    /// The exact bytes in base64, when `text` is not them.
    pub exact_b64: Option<String>,
}

/// Makes bytes safe to show.
pub fn show(bytes: &[u8]) -> Shown {
    let lossy = String::from_utf8_lossy(bytes);
    let text: String = lossy.chars().map(|c| if is_unsafe(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
    let exact_b64 = (text.as_bytes() != bytes).then(|| STANDARD.encode(bytes));
    Shown { text, exact_b64 }
}

/// Just the text, where the exact bytes do not matter.
pub fn shown(bytes: &[u8]) -> String {
    show(bytes).text
}

/// Controls (C0, DEL, C1), line and paragraph separators, and what turns or embeds the reading direction.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn plain_names_are_left_alone() {
        assert_eq!(
            show("/modèles/llama.gguf".as_bytes()),
            Shown { text: "/modèles/llama.gguf".into(), exact_b64: None }
        );
    }

    #[test]
    fn what_could_mislead_a_reader_is_replaced_and_kept() {
        assert_eq!(show(b"a\xff\n").text, "a\u{fffd}\u{fffd}");
        assert_eq!(show(b"a\xff\n").exact_b64.as_deref(), Some("Yf8K"));
        assert_eq!(show("gpj\u{202e}.exe".as_bytes()).text, "gpj\u{fffd}.exe");
        assert_eq!(show(b"\x1b[31m").text, "\u{fffd}[31m");
    }

    proptest! {
        #[test]
        fn the_exact_bytes_can_always_be_had_back(bytes: Vec<u8>) {
            let shown = show(&bytes);
            let back = shown.exact_b64.map_or(shown.text.clone().into_bytes(), |b64| STANDARD.decode(b64).unwrap());
            prop_assert_eq!(back, bytes);
            prop_assert!(!shown.text.chars().any(is_unsafe));
        }
    }
}
