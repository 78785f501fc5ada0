//! The demo: a service, a synthetic head, and what comes out.
pub(crate) fn run(_once: bool) -> anyhow::Result<()> {
    todo!()
}
