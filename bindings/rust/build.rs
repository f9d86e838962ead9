//! Links the library in the folder that RAYDISTILL_NATIVE names, by default `native` beside this
//! file: `python -m raydistill.serving.native native` makes it. Programs look for the library there
//! and beside themselves.
use std::{env, path::Path};

fn main() {
    let here = env::var("CARGO_MANIFEST_DIR").unwrap();
    let given = env::var("RAYDISTILL_NATIVE").unwrap_or_else(|_| "native".to_string());
    let folder = Path::new(&here).join(given);
    println!("cargo:rerun-if-env-changed=RAYDISTILL_NATIVE");
    println!("cargo:rustc-link-search=native={}", folder.display());
    println!("cargo:rustc-link-lib=raydistill");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", folder.display());
}
