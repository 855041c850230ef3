//! A runner of GitHub Actions, as far as a composite action needs one: it reads `action.yml`, fills
//! in `${{ … }}`, runs each step in a shell of its own, and collects outputs, path and summary.
//!
//! What it does not know it refuses, so that the action cannot come to rely on it by chance.

use crate::shop::Shop;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What GitHub's runner sends to a process that it cancels, and how long it waits after each.
const CANCELLATION: [(Signal, Duration); 3] = [
    (Signal::INT, Duration::from_millis(7500)),
    (Signal::TERM, Duration::from_millis(2500)),
    (Signal::KILL, Duration::from_secs(30)),
];

pub(crate) struct Runner<'a> {
    shop: &'a Shop,
    temp: tempfile::TempDir,
    path: Vec<PathBuf>,
}

/// How a job with the action ended.
pub(crate) struct Job {
    /// Of the step that failed, or 0.
    pub(crate) code: i32,
    pub(crate) outputs: BTreeMap<String, String>,
    pub(crate) summary: String,
    /// All that the steps wrote.
    pub(crate) log: String,
    /// After each step: the folders that it left in the runner's temporary folder, with their modes.
    pub(crate) folders: Vec<Vec<u32>>,
}

impl<'a> Runner<'a> {
    /// A runner where `greenlight` is installed.
    pub(crate) fn new(shop: &'a Shop) -> Self {
        let program = Path::new(env!("CARGO_BIN_EXE_greenlight"));
        let path = std::env::var_os("PATH").expect("there is a path");
        let installed = program.parent().expect("it is in a folder").to_owned();
        let path = std::iter::once(installed).chain(std::env::split_paths(&path));
        Self::with_path(shop, path.collect())
    }

    pub(crate) fn with_path(shop: &'a Shop, path: Vec<PathBuf>) -> Self {
        let temp = tempfile::tempdir().expect("a folder");
        Self { shop, temp, path }
    }

    pub(crate) fn temp(&self) -> &Path {
        self.temp.path()
    }

    /// Runs the action with these inputs.
    pub(crate) fn run(&self, inputs: &[(&str, &str)]) -> Job {
        self.run_and(inputs, |_, mut step| step.wait().expect("it ends").code())
    }

    /// Runs the action; each step's process is waited for by `wait`, which gets its id.
    pub(crate) fn run_and(
        &self,
        inputs: &[(&str, &str)],
        mut wait: impl FnMut(&str, Child) -> Option<i32>,
    ) -> Job {
        let action = action();
        let mut context = Context::new(&action, inputs);
        let mut path = self.path.clone();
        let mut job = Job {
            code: 0,
            outputs: BTreeMap::new(),
            summary: String::new(),
            log: String::new(),
            folders: Vec::new(),
        };
        for step in action["runs"]["steps"].as_array().expect("it has steps") {
            let always = match step.get("if") {
                None => false,
                Some(condition) => {
                    assert_eq!(condition, "${{ always() }}");
                    true
                }
            };
            if job.code != 0 && !always {
                continue;
            }
            let id = step["id"].as_str().unwrap_or_default();
            let files = Files::new();
            let child = self.start(step, &context, &path, &files);
            let code = wait(id, child).unwrap_or(-1);
            if job.code == 0 {
                job.code = code;
            }
            job.log.push_str(&files.read("log"));
            job.summary.push_str(&files.read("summary"));
            context.steps.insert(id.to_owned(), files.outputs());
            let added = files.read("path");
            path.splice(0..0, added.lines().map(PathBuf::from));
            job.folders.push(self.folders());
        }
        let outputs = action["outputs"].as_object().expect("it has outputs");
        let value = |output: &Value| context.fill(output["value"].as_str().expect("text"));
        job.outputs = outputs.iter().map(|(n, o)| (n.clone(), value(o))).collect();
        job
    }

    fn start(&self, step: &Value, context: &Context, path: &[PathBuf], files: &Files) -> Child {
        let script = step["run"].as_str().expect("each step runs a script");
        assert!(
            !script.contains("${{"),
            "an expression in a script: {script}"
        );
        assert_eq!(step["shell"], "bash");
        let script_file = files.0.path().join("script.sh");
        std::fs::write(&script_file, script).expect("a folder");
        let log = std::fs::File::create(files.0.path().join("log")).expect("a folder");

        // A shell cannot trap a signal that was ignored when it started, and SIGINT is ignored
        // where these tests run in the background of a script. `env` becomes the shell.
        let mut command = Command::new("env");
        command
            .args(["--default-signal=INT", "bash"])
            .args(["--noprofile", "--norc", "-e", "-o", "pipefail"])
            .arg(script_file)
            .current_dir(self.shop.dir())
            .env_remove("GREENLIGHT_FLEET")
            .env("PATH", std::env::join_paths(path).expect("no colons"))
            .env("CI", "true")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_ACTOR", "octocat")
            .env("GITHUB_RUN_ID", "42")
            .env("GITHUB_ACTION_PATH", root())
            .env("GITHUB_OUTPUT", files.0.path().join("output"))
            .env("GITHUB_PATH", files.0.path().join("path"))
            .env("GITHUB_STEP_SUMMARY", files.0.path().join("summary"))
            .env("RUNNER_TEMP", self.temp())
            .env("RUNNER_TOOL_CACHE", self.temp().join("tools"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("descriptors"))
            .stderr(log);
        for (name, value) in step["env"].as_object().into_iter().flatten() {
            command.env(name, context.fill(value.as_str().expect("text")));
        }
        command.spawn().expect("bash runs")
    }

    fn folders(&self) -> Vec<u32> {
        let entries = std::fs::read_dir(self.temp()).expect("it is there");
        let entries = entries.map(|entry| entry.expect("it can be listed"));
        let folders = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().starts_with("greenlight-")
        });
        folders
            .map(|folder| folder.metadata().expect("it is there").permissions().mode() & 0o777)
            .collect()
    }
}

/// Ends a process as GitHub's runner does when a job is cancelled, and says how it ended: its exit
/// code and after which signal.
pub(crate) fn cancel(mut child: Child, to: impl Fn(Pid, Signal)) -> (Option<i32>, Signal) {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    for (signal, timeout) in CANCELLATION {
        to(pid.expect("a process has an id"), signal);
        let deadline = Instant::now() + timeout;
        while Instant::now() < deadline {
            if let Some(status) = child.try_wait().expect("it is a child") {
                return (status.code(), signal);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("it outlived SIGKILL");
}

/// What expressions may speak of.
struct Context {
    inputs: BTreeMap<String, String>,
    steps: BTreeMap<String, BTreeMap<String, String>>,
}

impl Context {
    fn new(action: &Value, given: &[(&str, &str)]) -> Self {
        let known = action["inputs"].as_object().expect("it has inputs");
        let default = |input: &Value| input["default"].as_str().unwrap_or_default().to_owned();
        let defaults = known
            .iter()
            .map(|(name, input)| (name.clone(), default(input)));
        let mut inputs: BTreeMap<_, _> = defaults.collect();
        for (name, value) in given {
            let replaced = inputs.insert((*name).to_owned(), (*value).to_owned());
            assert!(replaced.is_some(), "there is no input `{name}`");
        }
        Self {
            inputs,
            steps: BTreeMap::new(),
        }
    }

    /// A text with its expressions replaced.
    fn fill(&self, text: &str) -> String {
        let mut filled = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${{") {
            let (expression, after) = after.split_once("}}").expect("it ends");
            filled.push_str(before);
            filled.push_str(&self.value(expression.trim()));
            rest = after;
        }
        filled + rest
    }

    fn value(&self, expression: &str) -> String {
        match expression.split('.').collect::<Vec<_>>()[..] {
            ["inputs", name] => self.inputs[name].clone(),
            ["steps", id, "outputs", name] => {
                let outputs = self.steps.get(id);
                let value = outputs.and_then(|outputs| outputs.get(name));
                value.cloned().unwrap_or_default()
            }
            _ => panic!("`{expression}` is beyond this runner"),
        }
    }
}

/// The files that a step writes to.
struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().expect("a folder"));
        for name in ["output", "path", "summary"] {
            std::fs::write(files.0.path().join(name), "").expect("a folder");
        }
        files
    }

    fn read(&self, name: &str) -> String {
        let text = std::fs::read(self.0.path().join(name)).expect("it was made");
        String::from_utf8_lossy(&text).into_owned()
    }

    fn outputs(&self) -> BTreeMap<String, String> {
        let text = self.read("output");
        let pairs = text.lines().map(|line| {
            let (name, value) = line.split_once('=').expect("name=value");
            (name.to_owned(), value.to_owned())
        });
        // As on GitHub, the last of a name counts.
        pairs.collect()
    }
}

/// The root of the repository, where the action is.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.join("../..").canonicalize().expect("it is there")
}

fn action() -> Value {
    let text = std::fs::read_to_string(root().join("action.yml")).expect("it is there");
    serde_saphyr::from_str(&text).expect("it is YAML")
}
