//! The end-to-end checks as a program, run as root by `cargo xtask test`.
//!
//! `end-to-end [PART OF A NAME]`. Output as that of the kernel checks: `ok`, `not ok`, `skip`, one line each.

use std::process::ExitCode;

use plumbline_tests::{checks::Ended, daemon::Tools, fake_engine, samples, spine};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // A process of its own that a check started.
    let role = match arguments.split_first().map(|(first, rest)| (&**first, rest)) {
        Some(("serve", rest)) => Some(fake_engine::serve_for_ever(rest)),
        Some(("samples", _)) => Some(samples::print()),
        _ => None,
    };
    if let Some(ended) = role {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("not ok {arguments:?}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let tools = match Tools::from_environment() {
        Ok(tools) => tools,
        Err(why) => {
            println!("not ok the tools are there: {why}");
            return ExitCode::FAILURE;
        }
    };
    let only = arguments.first();
    let scratch = std::env::temp_dir().join(format!("plumbline-e2e-{}", std::process::id()));
    let mut failed = 0;
    spine::run_all(&tools, &scratch, only.map(String::as_str), &mut |name, ended| match ended {
        Ended::Ok => println!("ok {name}"),
        Ended::NotOk(why) => {
            failed += 1;
            println!("not ok {name}: {}", why.replace('\n', " | "));
        }
        Ended::Skipped(why) | Ended::NotRun(why) => println!("skip {name}: not run, because {why}"),
    });
    if failed == 0 {
        let _ = std::fs::remove_dir_all(scratch);
        ExitCode::SUCCESS
    } else {
        println!("# what the daemons said is in {}", scratch.display());
        ExitCode::FAILURE
    }
}
