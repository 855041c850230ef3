//! Images made here, without a registry: from one static program, or from programs of this
//! machine with the libraries that they need.

use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, RemoveImageOptionsBuilder};
use futures_util::StreamExt as _;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// A client of the daemon that `scripts/with-dockerd` started.
pub(crate) fn docker() -> Docker {
    assert!(
        std::env::var_os("GREENLIGHT_DOCKERD").is_some(),
        "run the tests of docker with scripts/with-dockerd"
    );
    Docker::connect_with_unix_defaults().expect("the daemon runs")
}

/// What an image is built from.
pub(crate) struct Context {
    tar: tar::Builder<Vec<u8>>,
    seen: BTreeSet<PathBuf>,
}

impl Context {
    pub(crate) fn new() -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            seen: BTreeSet::new(),
        }
    }

    /// A file, under another name; links are followed.
    pub(crate) fn file(&mut self, from: &Path, to: &str) {
        if self.seen.insert(PathBuf::from(to)) {
            self.tar
                .append_path_with_name(from, to)
                .expect("the file can be read");
        }
    }

    /// A program where it is, under `root`, and every library that it names.
    pub(crate) fn program(&mut self, program: &Path) {
        self.file(program, &format!("root{}", program.display()));
        let ldd = Command::new("ldd").arg(program).output().expect("ldd runs");
        for word in String::from_utf8_lossy(&ldd.stdout).split_whitespace() {
            if word.starts_with('/') {
                self.file(Path::new(word), &format!("root{word}"));
            }
        }
    }

    /// A folder where it is, under `root`, without what its users do not need.
    pub(crate) fn folder(&mut self, folder: &Path, without: &[&str]) {
        for entry in std::fs::read_dir(folder)
            .expect("the folder can be read")
            .flatten()
        {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if without.contains(&name.as_str()) {
                continue;
            }
            if path.is_dir() {
                self.folder(&path, without);
            } else {
                self.file(&path, &format!("root{}", path.display()));
            }
        }
    }

    /// Builds the image, and gives its id.
    pub(crate) async fn build(mut self, docker: &Docker, tag: &str, dockerfile: &str) -> String {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(dockerfile.len()).expect("it is short"));
        header.set_mode(0o644);
        header.set_cksum();
        self.tar
            .append_data(&mut header, "Dockerfile", dockerfile.as_bytes())
            .expect("memory takes it");
        let tar = self.tar.into_inner().expect("memory takes it");
        let options = BuildImageOptionsBuilder::default().t(tag).rm(true).build();
        let body = bollard::body_full(tar.into());
        let mut progress = std::pin::pin!(docker.build_image(options, None, Some(body)));
        while let Some(step) = progress.next().await {
            step.expect("the image can be built");
        }
        let built = docker.inspect_image(tag).await.expect("it is there");
        built.id.expect("images have an id")
    }
}

/// A web service of one static file; compiled once.
pub(crate) fn static_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../greenlight-agent/tests/docker/apps/static.rs");
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static-app");
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
        let compiled = Command::new(rustc)
            .args([
                "--edition",
                "2024",
                "-O",
                "-C",
                "target-feature=+crt-static",
            ])
            .arg("-o")
            .arg(&program)
            .arg(&source)
            .status();
        assert!(
            compiled.expect("rustc runs").success(),
            "the sample does not compile"
        );
        program
    })
}

/// An image `FROM scratch` around the static program, with more lines of a Dockerfile.
pub(crate) async fn from_scratch(docker: &Docker, tag: &str, more: &str) -> String {
    let mut context = Context::new();
    context.file(static_program(), "app");
    let dockerfile = format!("FROM scratch\nCOPY app /app\nCMD [\"/app\"]\n{more}\n");
    context.build(docker, tag, &dockerfile).await
}

/// An image of 48 MB that cannot be made smaller.
pub(crate) async fn big(docker: &Docker, tag: &str) {
    let mut noise = Vec::new();
    let random = std::fs::File::open("/dev/urandom").expect("Linux");
    let read = std::io::Read::read_to_end(&mut std::io::Read::take(random, 48 << 20), &mut noise);
    read.expect("there is always more");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("noise");
    std::fs::write(&file, noise).expect("a folder");
    let mut context = Context::new();
    context.file(&file, "noise");
    context
        .build(
            docker,
            tag,
            "FROM scratch\nCOPY noise /noise\nCMD [\"/noise\"]\n",
        )
        .await;
}

/// A shell and what scripts for it need.
pub(crate) async fn shell(tag: &str) {
    let docker = docker();
    let mut context = Context::new();
    for program in ["/bin/sh", "/bin/sleep"] {
        context.program(Path::new(program));
    }
    let dockerfile = "FROM scratch\nCOPY root/ /\nENV PATH=/bin\n";
    context.build(&docker, tag, dockerfile).await;
}

/// Python with its library, and nothing else.
pub(crate) async fn python(docker: &Docker, tag: &str) {
    let ask = |code: &str| {
        let asked = Command::new("python3")
            .args(["-c", code])
            .output()
            .expect("python3 runs");
        PathBuf::from(String::from_utf8_lossy(&asked.stdout).trim())
    };
    let program = ask("import os, sys; print(os.path.realpath(sys.executable))");
    let library = ask("import sysconfig; print(sysconfig.get_path('stdlib'))");
    let home = ask("import sys; print(sys.base_prefix)");
    let mut context = Context::new();
    context.program(&program);
    let spare = [
        "__pycache__",
        "test",
        "tests",
        "site-packages",
        "dist-packages",
        "idlelib",
    ];
    let spare = [
        &spare[..],
        &[
            "ensurepip",
            "tkinter",
            "lib2to3",
            "config-3.11-x86_64-linux-gnu",
        ],
    ];
    context.folder(&library, &spare.concat());
    for module in std::fs::read_dir(library.join("lib-dynload"))
        .into_iter()
        .flatten()
        .flatten()
    {
        context.program(&module.path());
    }
    let dockerfile = format!(
        "FROM scratch\nCOPY root/ /\nENV PYTHONHOME={} PYTHONUNBUFFERED=1\nENTRYPOINT [\"{}\"]\n",
        home.display(),
        program.display()
    );
    context.build(docker, tag, &dockerfile).await;
}

/// Node, and nothing else.
pub(crate) async fn node(docker: &Docker, tag: &str) {
    let asked = Command::new("node")
        .args(["-p", "process.execPath"])
        .output();
    let program = asked.expect("node runs").stdout;
    let program = PathBuf::from(String::from_utf8_lossy(&program).trim());
    let mut context = Context::new();
    context.program(&program);
    // Debian's Node reads some of its own modules from here.
    let modules = Path::new("/usr/share/nodejs");
    if program.starts_with("/usr/bin") && modules.is_dir() {
        for wanted in [
            "undici",
            "acorn",
            "acorn-walk",
            "cjs-module-lexer",
            "minimatch",
            "busboy",
        ] {
            let module = modules.join(wanted);
            if module.is_dir() {
                context.folder(&module, &[]);
            }
        }
    }
    let dockerfile = format!(
        "FROM scratch\nCOPY root/ /\nENTRYPOINT [\"{}\"]\n",
        program.display()
    );
    context.build(docker, tag, &dockerfile).await;
}

/// Takes a name away from an image; the image too, if it has no other.
pub(crate) async fn untag(docker: &Docker, tag: &str) {
    let options = RemoveImageOptionsBuilder::default().build();
    let removed = docker.remove_image(tag, Some(options), None).await;
    removed.expect("it is there and unused");
}
