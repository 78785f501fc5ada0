//! `sqlx::migrate!` reads the folder when the crate is compiled, and cargo does not see a new file.

fn main() {
    println!("cargo::rerun-if-changed=migrations");
}
