//! `plumbline audit keygen` and `enroll`: keys, and what others must know of them.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use plumbline_audit::{SigningKey, log::CHECKPOINT_FILE, verify::key_from_text_or_file};
use serde_json::json;

use super::{Outcome, Output};
use crate::{
    cli::{ConfigFile, say},
    config::Config,
    custody::keys::{CREDENTIAL, origin, write_new},
    daemon::hostname,
};

#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  plumbline audit keygen --out node.key            a file of mode 600
  plumbline audit keygen --seal --out plumbline.key.cred
                                                   sealed to this machine (TPM if there is one) by systemd-creds;
                                                   in the unit: LoadCredentialEncrypted=plumbline.key:/etc/plumbline/plumbline.key.cred
  plumbline audit keygen --name witness.example/w1 --witness --out witness.key
Prints the verifier key: it belongs into the inventory, off this machine.")]
pub(in crate::cli) struct Keygen {
    /// The key's name, which is the log's [default: plumbline/HOSTNAME]
    #[arg(long)]
    name: Option<String>,
    /// Where the key goes; a file that exists is never written over
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Seal it with systemd-creds
    #[arg(long)]
    seal: bool,
    /// A key for `plumbline witness`
    #[arg(long, conflicts_with = "seal")]
    witness: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Enroll {
    #[command(flatten)]
    config: ConfigFile,
    #[command(flatten)]
    output: Output,
}

pub(super) fn generate(arguments: &Keygen) -> Outcome {
    let name = arguments.name.clone().unwrap_or_else(|| origin(&hostname()));
    let mut key = SigningKey::generate(&name)?;
    if arguments.witness {
        key = key.into_witness();
    }
    if arguments.seal {
        seal(&key, &arguments.out)?;
    } else {
        write_new(&arguments.out, &key)?;
    }
    say(&key.verifier().to_string());
    Ok(0)
}

/// The secret goes through a pipe and touches no disk.
fn seal(key: &SigningKey, out: &PathBuf) -> Result<(), Box<dyn std::error::Error>> {
    use std::io::Write as _;
    if out.exists() {
        return Err(format!("{} exists and is not written over", out.display()).into());
    }
    let mut child = Command::new("systemd-creds")
        .args(["encrypt", "--name", CREDENTIAL, "-"])
        .arg(out)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("systemd-creds (systemd 250 or later) is needed to seal a key: {error}"))?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(key.to_text().as_bytes())?;
    }
    let status = child.wait()?;
    if status.success() { Ok(()) } else { Err(format!("systemd-creds ended with {status}").into()) }
}

pub(super) fn enroll(arguments: &Enroll) -> Outcome {
    let (config, _) = Config::load(arguments.config.config.as_deref())?;
    let node = config.node.clone().unwrap_or_else(hostname);
    // The key that signs the log, wherever its secret is; none is made here.
    let vkey = key_from_text_or_file(&config.vkey_file().to_string_lossy())
        .map_err(|error| format!("{}; the daemon writes it at its first start", crate::core::chain(&error)))?;
    let machine_id = fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned();
    let checkpoint = fs::read_to_string(config.log_dir().join(CHECKPOINT_FILE)).ok();
    if arguments.output.is_json() {
        let enrolment = json!({
            "node": node, "origin": vkey.name(), "vkey": vkey.to_string(),
            "machine_id": machine_id, "checkpoint": checkpoint,
        });
        say(&enrolment.to_string());
        return Ok(0);
    }
    say(&format!("node        {node}"));
    say(&format!("machine id  {}", if machine_id.is_empty() { "not known" } else { &machine_id }));
    say(&format!("key         {vkey}"));
    say("\nFor a reviewer:\n");
    say(&format!("  plumbline-verify LOG --key '{vkey}'"));
    say("\nFor a witness (tlog-policy):\n");
    say(&format!("  log {vkey}"));
    match checkpoint {
        Some(checkpoint) => say(&format!("\nThe log's checkpoint now, to be kept off this machine:\n\n{checkpoint}")),
        None => say("\nThere is no log yet."),
    }
    Ok(0)
}
