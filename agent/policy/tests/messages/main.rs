//! What a person sees who made a mistake: every message names the place, what is wrong, and what to write.

use expect_test::Expect;
use plumbline_policy::Policy;

mod effects;
mod exceptions;
mod guards;
mod lists;
mod names;
mod rules;
mod yaml;

/// The rendered mistakes of a policy file, or its success.
pub(crate) fn check(text: &str, expect: &Expect) {
    let seen = match Policy::parse("policy.yaml", text) {
        Ok(policy) => format!("ok: {}", policy.name()),
        Err(mistakes) => {
            let mut drawn = format!("{mistakes}\n");
            mistakes.render(&mut drawn).expect("writing into a string");
            drawn
        }
    };
    expect.assert_eq(&seen);
}

/// A policy whose one rule ends in `rest`, which gives `match` and what follows.
pub(crate) fn with_rule(rest: &str) -> String {
    format!(
        "apiVersion: plumbline/v1\nkind: Policy\nmetadata: {{name: p}}\nspec:\n  rules:\n    - name: r\n      severity: high\n      effect: alert\n      message: m\n{rest}"
    )
}
