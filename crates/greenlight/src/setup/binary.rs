//! The program that is installed, and the machines that it runs on.

use greenlight_release::digest::sha256_hex;
use std::io;
use std::path::{Path, PathBuf};

/// A file of this program.
#[derive(Clone, Debug)]
pub struct Binary {
    /// Where it is here.
    pub path: PathBuf,
    /// The SHA-256 of its bytes.
    pub digest: String,
    /// The output of `uname -m` on a machine that runs it.
    pub machine: String,
}

impl Binary {
    /// Looks at a file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        let machine = machine(&bytes)
            .ok_or_else(|| io::Error::other("it is not a Linux program of a known architecture"))?;
        Ok(Self {
            path: path.to_owned(),
            digest: sha256_hex(&bytes),
            machine: machine.to_owned(),
        })
    }
}

/// The architecture in the head of an ELF file.
fn machine(bytes: &[u8]) -> Option<&'static str> {
    let head = bytes.get(..20)?;
    if !head.starts_with(b"\x7fELF") {
        return None;
    }
    match u16::from_le_bytes([head[18], head[19]]) {
        62 => Some("x86_64"),
        183 => Some("aarch64"),
        243 => Some("riscv64"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_architecture_is_read_from_the_file_itself() {
        let own = std::env::current_exe().expect("this test has a file");
        let binary = Binary::open(&own).expect("it is a program");
        assert_eq!(binary.machine, std::env::consts::ARCH);
        assert_eq!(machine(b"#!/bin/sh\n and more than twenty bytes"), None);
    }
}
