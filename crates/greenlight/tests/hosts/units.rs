//! The unit files that `greenlight setup` writes, as systemd's own tools judge them.

use greenlight::setup::{DesiredState, Facts, Unit, machines};
use greenlight_config::Config;
use std::process::Command;

/// By what is deployed: the largest exposure of an agent, in tenths. An agent whose applications
/// are its own processes must let them do what applications do; one that reloads Nginx is root.
const AGENTS: [(&str, u32); 4] = [
    ("command: [shop]", 50),
    ("image: shop", 20),
    ("image: shop\nproxy: { front: nginx, app_port: 80 }", 20),
    (
        "image: shop\nproxy: { front: nginx_reload, app_port: 80 }",
        60,
    ),
];

#[test]
#[ignore = "needs systemd-analyze"]
fn setup_writes_units_that_systemd_understands_and_that_may_do_little() {
    for (what, agent) in AGENTS {
        let text = format!("service: shop\n{what}\nservers: [10.0.0.1, 10.0.0.2]\n");
        let config = Config::parse("greenlight.yml", &text, []).expect("a good file");
        let machines = machines(&config).expect("addresses");
        let facts = Facts::read("cores\t2\nsystemd\t252\n");
        let wanted =
            DesiredState::of(&config, &machines, &machines[0], &facts).expect("good values");
        let folder = tempfile::tempdir().expect("a folder");
        for unit in &wanted.units {
            // The program is not installed here.
            let text = unit.text.replace("/usr/local/bin/greenlight", "/bin/true");
            std::fs::write(folder.path().join(unit.name), text).expect("a folder");
        }

        for unit in &wanted.units {
            let (good, said) = analyze(folder.path(), &["verify", "--man=no"], unit);
            assert!(good && said.is_empty(), "{what}: {}: {said}", unit.name);
            if unit.command.is_none() {
                continue;
            }
            let most = if unit.name.contains("agent") {
                agent
            } else {
                20
            };
            let threshold = format!("--threshold={most}");
            let security = ["security", "--offline=true", "--no-pager", &threshold];
            let (good, said) = analyze(folder.path(), &security, unit);
            assert!(good, "{what}: {said}");
            println!("{what:?}: {}", said.lines().last().unwrap_or_default());
        }
    }
}

fn analyze(dir: &std::path::Path, arguments: &[&str], unit: &Unit) -> (bool, String) {
    let output = Command::new("systemd-analyze")
        .args(arguments)
        .arg(dir.join(unit.name))
        .env(
            "SYSTEMD_UNIT_PATH",
            format!("{}:/lib/systemd/system", dir.display()),
        )
        .output()
        .expect("`systemd-analyze` runs");
    let texts = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&texts).trim().to_owned();
    (output.status.success(), said)
}
