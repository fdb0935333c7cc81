//! The end-to-end checks as a program, run as root by `cargo xtask test`.
//!
//! `end-to-end [PART OF A NAME]`. Output as that of the kernel checks: `ok`, `not ok`, `skip`, one line each.

use std::process::ExitCode;

use plumbline_tests::{checks::Ended, daemon::Tools, spine};

fn main() -> ExitCode {
    let tools = match Tools::from_environment() {
        Ok(tools) => tools,
        Err(why) => {
            println!("not ok the tools are there: {why}");
            return ExitCode::FAILURE;
        }
    };
    let only = std::env::args().nth(1);
    let scratch = std::env::temp_dir().join(format!("plumbline-e2e-{}", std::process::id()));
    let mut failed = 0;
    spine::run_all(&tools, &scratch, only.as_deref(), &mut |name, ended| match ended {
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
