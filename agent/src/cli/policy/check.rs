//! `plumbline check DIR`: policies, offline, without privileges.

use std::{path::PathBuf, process::ExitCode};

use plumbline_policy::KernelProfile;

use crate::{
    cli::{failed, say},
    verdict::enforce,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline check policies/
  plumbline check policies/ --kernel this
  plumbline check policies/ --kernel 6.1+bpf-lsm
The exit code is 0 when nothing is wrong, 1 when a file has a mistake, a policy fails one of its own tests or would be
refused on the kernel that was named, or there is nothing to check.")]
pub(in crate::cli) struct Arguments {
    /// The directory that holds the policies
    directory: PathBuf,
    /// Whether the policies could be in force there: `this`, a version such as 6.1, or 6.1+bpf-lsm where `bpf` is in `lsm=`
    #[arg(long, value_name = "KERNEL")]
    kernel: Option<String>,
}

pub(in crate::cli) fn main(arguments: &Arguments) -> ExitCode {
    let kernel = match arguments.kernel.as_deref().map(profile).transpose() {
        Ok(kernel) => kernel,
        Err(why) => {
            eprintln!("plumbline: {why}");
            return ExitCode::FAILURE;
        }
    };
    match plumbline_policy::check(&arguments.directory, kernel.as_ref()) {
        Ok(report) => {
            say(report.to_string().trim_end());
            ExitCode::from(report.exit_code())
        }
        Err(error) => failed(&error),
    }
}

fn profile(name: &str) -> Result<KernelProfile, String> {
    if name == "this" { Ok(enforce::this_kernel()) } else { KernelProfile::named(name) }
}
