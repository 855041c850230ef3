//! The metrics in Prometheus' text format.

use super::StatusAnswer;
use std::fmt::Write as _;

/// Renders a status as metrics.
pub(super) fn render(status: &StatusAnswer) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, rows: Vec<(String, u64)>| {
        writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}")
            .expect("writing to a string does not fail");
        for (labels, value) in rows {
            writeln!(text, "{name}{{{labels}}} {value}")
                .expect("writing to a string does not fail");
        }
    };
    let mut admitted = Vec::new();
    let mut in_flight = Vec::new();
    let mut open = Vec::new();
    for (name, service) in &status.services {
        let colors = [
            ("blue", service.blue, service.admitted_blue),
            ("green", service.green, service.admitted_green),
        ];
        for (color, flight, count) in colors {
            let labels = format!("service=\"{name}\",color=\"{color}\"");
            admitted.push((labels.clone(), count));
            for (kind, count) in [
                ("request", flight.requests),
                ("stream", flight.streams),
                ("upgrade", flight.upgrades),
            ] {
                in_flight.push((format!("{labels},kind=\"{kind}\""), count));
            }
        }
        open.push((
            format!("service=\"{name}\""),
            u64::from(service.state == "open"),
        ));
    }
    family(
        "greenlight_proxy_admitted_total",
        "counter",
        "Requests whose first byte was written to the application.",
        admitted,
    );
    family(
        "greenlight_proxy_in_flight",
        "gauge",
        "Requests, streams and upgraded connections in flight.",
        in_flight,
    );
    family(
        "greenlight_proxy_open",
        "gauge",
        "1 if the service's gate admits requests.",
        open,
    );
    text
}
