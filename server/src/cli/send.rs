//! `tez send`: DICOM objects to a peer, for trying Tez, or for sending on what a PACS lost.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dimse::scu::{Destination, Sent, send_files};

use super::input::gather;
use super::progress::Bar;
use super::{USAGE, tell, usage_error};
use crate::config::Config;

/// Sends DICOM objects to a peer by C-STORE, byte for byte.
///
/// Exit status: 0 the peer has them all, 1 it lacks some, such as one that cannot be read, 2 there
/// is nothing to send.
#[derive(Debug, Args)]
pub(super) struct SendArgs {
    /// DICOM files, folders and zips of them.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Where to send.
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:11112")]
    to: String,
    /// The peer's AE title.
    #[arg(long, value_name = "AE", default_value = "TEZ")]
    called: String,
    /// Our AE title.
    #[arg(long, value_name = "AE", default_value = "TEZ-SEND")]
    calling: String,
}

/// Sends, tells what was not taken, and counts.
pub(super) fn run(arguments: &SendArgs) -> anyhow::Result<ExitCode> {
    let input = match gather(&arguments.paths, &Config::default()) {
        Ok(input) => input,
        Err(error) => return Ok(usage_error(&error)),
    };
    for left_out in &input.left_out {
        tell(&format!("{}: not sent: {}", left_out.name, left_out.why));
    }
    let instances = input.studies.iter().flat_map(|study| &study.instances);
    let files: Vec<PathBuf> = instances.map(|instance| instance.path.clone()).collect();
    if files.is_empty() {
        tell("There is no DICOM object to send.");
        return Ok(ExitCode::from(USAGE));
    }
    let to = Destination {
        address: arguments.to.clone(),
        called_ae: arguments.called.clone(),
        calling_ae: arguments.calling.clone(),
    };
    let stored = send_all(&files, &to)?;
    let count = files.len();
    tell(&format!(
        "{stored} of {count} objects stored at {} ({})",
        to.address, to.called_ae
    ));
    let unread = input.studies.iter().any(|study| !study.unread.is_empty());
    Ok(ExitCode::from(u8::from(stored < count || unread)))
}

/// How many of the files the peer has now.
fn send_all(files: &[PathBuf], to: &Destination) -> anyhow::Result<usize> {
    let bar = Bar::new("Sending", files.len());
    let mut stored = 0;
    send_files(files, to, |path, sent| {
        bar.step();
        match refusal(&sent) {
            None => stored += 1,
            Some(why) => bar.aside(|| tell(&format!("{}: {why}", path.display()))),
        }
    })?;
    Ok(stored)
}

/// Why the peer does not have the file; `None` if it has it.
fn refusal(sent: &Sent) -> Option<String> {
    match sent {
        Sent::Stored { .. } => None,
        Sent::Refused { status, comment } => {
            let code = status.code();
            Some(format!("refused with status 0x{code:04X} {comment}"))
        }
        Sent::NotNegotiated {
            sop_class,
            transfer_syntax,
        } => Some(format!(
            "not sent: the peer does not take SOP class {sop_class} in transfer syntax \
             {transfer_syntax}"
        )),
        Sent::Unreadable { reason } => Some(format!("not sent: {reason}")),
    }
}
