//! A PostgreSQL server of the tests' own: it lives as long as they do, and nobody else reaches it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::debian;

/// Where Debian puts each version's programs, in `VERSION/bin`.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Debian's package; it brings the newest version that Debian has, and the user `postgres`.
const PACKAGE: &str = "postgresql";

/// Argument 1 is the folder of PostgreSQL's programs. Prints the folder of the server's socket once
/// it answers; ends the server and removes the folder when its input ends, which it does however
/// this program ends.
///
/// The folder lies below `/var/tmp`, which is on a disk: a database of 9 MB for each test makes more
/// than a gigabyte. Only its owner can enter it, so that nobody needs a password. What is kept need
/// not outlive the machine.
const KEEPER: &str = r#"
set -eu
trap '' PIPE
trap 'exit 1' HUP INT TERM
bin=$1
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/tez-postgres-XXXXXX")
trap 'rm -rf "$folder"' EXIT
log=$folder/log
fail() { cat "$log" >&2; exit 1; }
"$bin/initdb" --pgdata "$folder/data" --username tester --auth trust --encoding UTF8 \
    --locale C --no-sync > "$log" 2>&1 || fail
"$bin/postgres" -D "$folder/data" -k "$folder" -c listen_addresses= -c max_connections=300 \
    -c fsync=off -c full_page_writes=off -c wal_level=minimal -c max_wal_senders=0 \
    -c max_wal_size=128MB -c autovacuum=off >> "$log" 2>&1 &
server=$!
trap 'kill -INT "$server" && wait "$server" || :; rm -rf "$folder"' EXIT
tries=0
until "$bin/pg_isready" --quiet --host "$folder"; do
    tries=$((tries + 1))
    kill -0 "$server" && [ "$tries" -lt 600 ] || fail
    sleep 0.1
done
echo "$folder"
while read -r _; do :; done
"#;

/// A running server; ended, and all that it kept removed, when dropped.
#[derive(Debug)]
pub(crate) struct Postgres {
    keeper: Child,
    /// Where its socket lies.
    folder: String,
}

impl Postgres {
    /// Starts one and waits until it answers.
    pub(crate) fn start() -> Result<Self> {
        Self::start_as(keeper(&programs()?)?)
    }

    fn start_as(mut keeper: Command) -> Result<Self> {
        let mut keeper = keeper
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this program; the keeper notices its end.
            .process_group(0)
            .spawn()
            .context("starting PostgreSQL")?;
        let mut folder = String::new();
        BufReader::new(keeper.stdout.take().context("stdout is piped")?).read_line(&mut folder)?;
        let server = Self {
            keeper,
            folder: folder.trim_end().to_owned(),
        };
        if server.folder.is_empty() {
            bail!("PostgreSQL does not start; what it said stands above");
        }
        Ok(server)
    }

    /// Its address, with the word `DATABASE` for the database's name.
    pub(crate) fn url(&self) -> String {
        let host = self.folder.replace('%', "%25").replace('/', "%2F");
        format!("postgres://tester@{host}/DATABASE")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // It ends because its input did; how is no matter any more.
        drop(self.keeper.wait());
    }
}

/// Makes sure that PostgreSQL's programs are installed.
pub(crate) fn ensure() -> Result<()> {
    programs().map(drop)
}

/// The folder of PostgreSQL's programs.
fn programs() -> Result<PathBuf> {
    if let Some(folder) = newest(Path::new(VERSIONS))? {
        return Ok(folder);
    }
    debian::install(&[PACKAGE]).context("PostgreSQL, on which the tests run a second time")?;
    newest(Path::new(VERSIONS))?
        .with_context(|| format!("Debian's {PACKAGE} is installed, but not in {VERSIONS}"))
}

/// The programs of the newest version below `versions`.
fn newest(versions: &Path) -> Result<Option<PathBuf>> {
    if !versions.try_exists()? {
        return Ok(None);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(versions)? {
        let entry = entry?;
        let folder = entry.path().join("bin");
        // A client alone has neither.
        let is_whole =
            folder.join("postgres").try_exists()? && folder.join("initdb").try_exists()?;
        let version = entry.file_name().to_string_lossy().parse::<u32>();
        if let (true, Ok(version)) = (is_whole, version) {
            found.push((version, folder));
        }
    }
    Ok(found.into_iter().max().map(|(_, folder)| folder))
}

/// The keeper, as somebody whom PostgreSQL serves: it refuses to run as root.
fn keeper(programs: &Path) -> Result<Command> {
    let mut command = if debian::is_root()? {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
        command.arg("sh");
        command
    } else {
        Command::new("sh")
    };
    // The user may not enter the checkout.
    command.current_dir("/");
    command.args(["-c", KEEPER, "tez-postgres"]).arg(programs);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs that do as PostgreSQL's would: `postgres` is what the server does, and it answers
    /// once there is a file `ready`.
    fn programs(folder: &Path, postgres: &str) {
        use std::os::unix::fs::PermissionsExt;
        let here = folder.display();
        for (name, what) in [
            ("initdb", "exit 0"),
            ("postgres", postgres),
            ("pg_isready", "[ -e ready ]"),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\ncd '{here}'\n{what}\n")).expect("writing");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("its rights");
        }
    }

    fn keeper_of(folder: &Path) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "tez-postgres"]).arg(folder);
        command.env("TMPDIR", folder);
        command
    }

    #[test]
    fn the_newest_version_that_has_a_server_is_taken() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        assert_eq!(newest(&folder.path().join("none")).expect("none"), None);
        for (version, names) in [
            ("9", &["postgres", "initdb"][..]),
            ("15", &["postgres", "initdb"]),
            ("17", &["pg_dump"]),
        ] {
            let bin = folder.path().join(version).join("bin");
            std::fs::create_dir_all(&bin).expect("making a folder");
            for name in names {
                std::fs::write(bin.join(name), "").expect("writing");
            }
        }
        let found = newest(folder.path()).expect("a folder that can be read");
        assert_eq!(found, Some(folder.path().join("15/bin")));
    }

    #[test]
    fn a_server_ends_with_this_program_and_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let ended = folder.path().join("ended");
        // A shell has its background programs ignore SIGINT, and a script cannot undo that.
        let serve = "exec env --default-signal=INT sh -c '
            trap \"touch ended; exit 0\" INT; touch ready; while :; do sleep 0.01; done'";
        programs(folder.path(), serve);
        let server = Postgres::start_as(keeper_of(folder.path())).expect("it starts");
        assert!(Path::new(&server.folder).try_exists().expect("readable"));
        assert!(server.url().ends_with("/DATABASE") && server.url().contains("%2Ftez-postgres-"));
        let place = server.folder.clone();
        drop(server);
        assert!(ended.try_exists().expect("readable"));
        assert!(!Path::new(&place).try_exists().expect("readable"));
    }

    #[test]
    fn a_server_that_does_not_start_is_an_error() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        programs(folder.path(), "exit 1");
        Postgres::start_as(keeper_of(folder.path())).expect_err("there is none");
    }
}
