//! What a person at a terminal sees of a deployment, and what is left in a log.

use crate::shop::{Ran, Shop};
use std::process::{Command, Stdio};

#[test]
fn a_terminal_shows_a_bar_for_each_instance_and_what_cannot_draw_shows_lines() {
    let shop = Shop::new();
    shop.configure("");
    let _up = shop.up();

    let bars = on_a_terminal(&shop, "v1", &[("TERM", "xterm")]);
    for name in ["a", "b"] {
        let full = format!("  {name:<16} [{}] switched", "=".repeat(24));
        assert!(bars.data.contains(&full), "{bars}");
        assert!(!bars.data.contains(&format!("  {name}: ")), "{bars}");
    }
    for (version, dull) in [
        ("v2", [("TERM", "dumb"), ("LANG", "C")]),
        ("v3", [("TERM", "xterm"), ("CI", "true")]),
    ] {
        let lines = on_a_terminal(&shop, version, &dull);
        for name in ["a", "b"] {
            assert!(
                lines.data.contains(&format!("  {name}: switched")),
                "{lines}"
            );
        }
        assert!(!lines.data.contains("==="), "{lines}");
    }
}

/// Deploys with a terminal as standard output and standard error.
fn on_a_terminal(shop: &Shop, version: &str, variables: &[(&str, &str)]) -> Ran {
    let program = env!("CARGO_BIN_EXE_greenlight");
    let deploy = format!("stty cols 100 rows 30; '{program}' deploy --version {version}");
    let output = Command::new("script")
        .args(["--quiet", "--return", "--command", &deploy, "/dev/null"])
        .current_dir(shop.dir())
        .env_remove("CI")
        .env_remove("GREENLIGHT_FLEET")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output();
    let ran = Ran::from(output.expect("util-linux is there"));
    assert_eq!(ran.code, 0, "{ran}");
    ran
}
